#!/usr/bin/env bash
# The real figures: shipped teacher and student, four French tasks, three seeds: run.sh SHARED_FR WORK.
# Jobs run side by side, one a core, each on one thread. What is done stays; run it again after a stop.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
fr=$(cd "$1" && pwd) work=$2
mkdir -p "$work/logs" && cd "$work"
export OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false HF_HUB_OFFLINE=1
for set in sentiment/reviews ner/wikineural nli/xnli qa/piaf; do ln -sfn "$fr/$set" "${set#*/}"; done
for system in teacher student; do
  [ -e $system ] || ln -s "$(affinage list models --json | python -c "import json,sys; print(next(m['path'] for m in json.load(sys.stdin) if m['name'] == 'shipped:$system'))")" $system
done

job() { # folder verb arguments
  local out=$1; shift
  [ -d "$out" ] || echo "affinage $* --out $out --quiet > logs/$out.log 2>&1 || echo $out failed"
}
jobs() { # Settings were chosen on the valid parts with seed 0 of the teacher (LOG.md), and are the same for both systems.
  for seed in 0 1 2; do
    for system in teacher student; do
      job $system-qa-$seed finetune $system --task qa --data piaf --seed $seed --set training.epochs=3 \
        --set training.learning_rate=2e-4 --set training.row_length=256
      job $system-sentiment-$seed finetune $system --task sentiment --data reviews --seed $seed --set training.epochs=2 \
        --set training.learning_rate=2e-4 --set training.row_length=192
      job $system-ner-$seed finetune $system --task ner --data wikineural --seed $seed --set training.epochs=3 \
        --set training.learning_rate=3e-4 --set training.row_length=128
      job $system-nli-$seed finetune $system --task nli --data xnli --seed $seed --set training.epochs=4 \
        --set training.learning_rate=2e-4 --set training.row_length=128
    done
    job baseline-qa-$seed baseline teacher --task qa --data piaf --seed $seed --set training.row_length=256
    job baseline-sentiment-$seed baseline teacher --task sentiment --data reviews --seed $seed --set training.row_length=192
    job baseline-ner-$seed baseline teacher --task ner --data wikineural --seed $seed
    job baseline-nli-$seed baseline teacher --task nli --data xnli --seed $seed
  done
}
jobs | xargs -d '\n' -P "$(nproc)" -I{} bash -c '{}'
unset OMP_NUM_THREADS MKL_NUM_THREADS
[ -d benchmark ] || affinage benchmark teacher student --out benchmark
rm -rf report
affinage report teacher student teacher-* student-* baseline-* benchmark --reference teacher --out report
cp report/report.json "$here/report.json"
cp report/report.md "$here/report.md"
