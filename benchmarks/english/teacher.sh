#!/bin/sh
# The English teacher: a vocabulary head for all-MiniLM-L6-v2, the encoder frozen, then both together a little.
#   benchmarks/english/teacher.sh CORPUS OUT      (CORPUS: ../shared/data/en/corpus)
# Resumable: run it again. wikitext2 is for evaluation only and is left out.
set -eu
corpus=$1 out=$2
encoder=$(python -c 'from affinage.models.english import english_teacher; print(english_teacher())')
texts=$(find "$corpus" -name '*.txt.gz' ! -name 'wikitext2*' | sort)
[ -d "$out/head" ] || affinage pretrain $texts --from "$encoder" --recipe mlm-head --max-steps "${HEAD_STEPS:-1500}" --out "$out/head"
[ -d "$out/teacher" ] || affinage pretrain $texts --from "$out/head" --recipe mlm-together \
  --max-steps "${TOGETHER_STEPS:-1500}" --out "$out/teacher"
