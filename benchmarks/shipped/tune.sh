#!/usr/bin/env bash
# How the settings of run.sh were chosen: the teacher, seed 0, scored on the valid parts alone: tune.sh SHARED_FR WORK.
# Jobs run side by side, one a core, each on one thread. What is done stays; run it again after a stop.
set -euo pipefail
fr=$(cd "$1" && pwd) work=$2
mkdir -p "$work/logs" "$work/valid" && cd "$work"
cores=$(nproc) # before OMP_NUM_THREADS, which it heeds
export OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false HF_HUB_OFFLINE=1
for set in sentiment/reviews ner/wikineural nli/xnli qa/piaf; do # without their test parts
  mkdir -p "valid/${set#*/}"
  ln -sfn "$fr/$set"/train* "$fr/$set"/valid* "valid/${set#*/}/"
done

job() { # task set row-length steps learning-rate more
  local out="tune-$1-$5${6:+-${6##*=}}"
  [ -d "$out" ] || echo "affinage finetune shipped:teacher --task $1 --data valid/$2 --seed 0 --set training.row_length=$3" \
    "--max-steps $4 --set training.learning_rate=$5 --set training.evaluations=1 ${6:+--set $6} --out $out --quiet" \
    "> logs/$out.log 2>&1 || echo $out failed"
}
jobs() { # a third of the steps of run.sh; all of them in NLI, which is at chance for long
  for rate in 2e-4 5e-4; do
    job qa piaf 256 280 $rate student.dropout=0
    job nli xnli 96 812 $rate
    job sentiment reviews 128 225 $rate
    job ner wikineural 96 480 $rate
  done
  job nli xnli 96 812 1e-4 # because 5e-4 stayed at chance
}
jobs | xargs -d '\n' -P "$cores" -I{} bash -c '{}'
for report in tune-*/report.json; do
  python -c "import json, sys; score = json.load(open(sys.argv[1]))['scores'][0]; print(sys.argv[1].split('/')[0], score['split'], score['metric'], round(score['value'], 4), 'n', score['n'])" "$report"
done
