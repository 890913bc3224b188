#!/usr/bin/env bash
# The real figures: shipped teacher and student, four French tasks, three seeds: run.sh SHARED_FR WORK.
# Jobs run side by side, one a core, each on one thread. What is done stays; run it again after a stop.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
fr=$(cd "$1" && pwd) work=$2
mkdir -p "$work/logs" && cd "$work"
cores=$(nproc) # before OMP_NUM_THREADS, which it heeds
export OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false HF_HUB_OFFLINE=1
for set in sentiment/reviews ner/wikineural nli/xnli qa/piaf; do ln -sfn "$fr/$set" "${set#*/}"; done
for system in teacher student; do
  [ -e $system ] || ln -s "$(affinage list models --json | python -c "import json,sys; print(next(m['path'] for m in json.load(sys.stdin) if m['name'] == 'shipped:$system'))")" $system
done

job() { # folder verb arguments
  local out=$1; shift
  [ -d "$out" ] || echo "affinage $* --out $out --quiet > logs/$out.log 2>&1 || echo $out failed"
}
settings() { # of a task, the same for teacher and student, chosen on the valid parts (tune.sh)
  case $1 in
    qa) echo --task qa --data piaf --set training.row_length=256 --set training.epochs=2 ;;
    sentiment) echo --task sentiment --data reviews --set training.row_length=128 --set training.epochs=1 ;;
    ner) echo --task ner --data wikineural --set training.row_length=96 --set training.epochs=2 ;;
    nli) echo --task nli --data xnli --set training.row_length=96 --set training.epochs=4 ;;
  esac
  echo --set student.dropout=0
}
rate() { # of a system and a task, chosen on the valid parts (tuning/)
  case $1-$2 in *-nli) echo 2e-4 ;; *-sentiment | teacher-ner) echo 3e-4 ;; student-ner) echo 8e-4 ;; *) echo 5e-4 ;; esac
}
jobs() { # the longest first
  for seed in 0 1 2; do
    for task in qa sentiment ner nli; do
      for system in teacher student; do
        job $system-$task-$seed finetune $system $(settings $task) --set training.learning_rate=$(rate $system $task) --seed $seed
      done
    done
    for task in qa sentiment ner nli; do
      job baseline-$task-$seed baseline teacher $(settings $task) --seed $seed
    done
  done
}
jobs | xargs -d '\n' -P "$cores" -I{} bash -c '{}'
unset OMP_NUM_THREADS MKL_NUM_THREADS
[ -d benchmark ] || affinage benchmark teacher student --out benchmark
rm -rf report
affinage report teacher student teacher-* student-* baseline-* benchmark --reference teacher --out report
cp report/report.json "$here/report.json"
cp report/report.md "$here/report.md"
