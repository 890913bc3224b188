#!/bin/bash
# DistilCamemBERT again, on 8 GPUs of one machine: sbatch examples/slurm.sh
# The arithmetic behind the figures here: docs/clusters.md. Change what is marked with <--.

#SBATCH --job-name=distilcamembert
#SBATCH --nodes=1                # more machines: raise this; the batch of a step grows with them, so lower max_steps
#SBATCH --ntasks-per-node=1      # torchrun starts one process for each GPU
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64       # text is tokenised while the GPUs train
#SBATCH --mem=200G
#SBATCH --time=24:00:00
#SBATCH --requeue                # preempted, or a machine failed: Slurm starts this script again,
#SBATCH --open-mode=append       # the same command goes on from the last whole checkpoint
#SBATCH --output=distilcamembert-%j.log

set -euo pipefail

# A file system that all machines see: the unfinished run lies in $RUNS/distilcamembert.partial.
CORPUS="$SCRATCH/oscar-fr"       # <-- many .txt.gz, .txt.zst or .parquet shards, one text a line
RUNS="$SCRATCH/runs"             # <--
source "$HOME/affinage/.venv/bin/activate"   # <--

# Compute nodes often have no network: fetch the teacher once on a login node
# (python -c "import transformers as t; t.AutoModelForMaskedLM.from_pretrained('camembert-base')").
export HF_HUB_OFFLINE=1
export OMP_NUM_THREADS=8         # cores of the machine / GPUs of the machine

mkdir -p "$RUNS"
if [[ -e "$RUNS/distilcamembert" ]]; then
  echo "already whole: $RUNS/distilcamembert"
  exit 0
fi

first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)

# 8 processes x 512 rows x 128 tokens a step; 62,943 steps are 33 billion tokens, one pass over the corpus.
# A checkpoint at every hundredth of the way: a preemption costs at most so much.
srun torchrun \
  --nnodes "$SLURM_NNODES" --nproc_per_node 8 \
  --rdzv_backend c10d --rdzv_endpoint "$first:29500" --rdzv_id "$SLURM_JOB_ID" \
  -m affinage distil camembert-base \
  --corpus "$CORPUS" --recipe distilcamembert --out "$RUNS/distilcamembert" \
  --set streaming=true --max-steps 62943 \
  --set training.batch_size=512 --set training.evaluations=100 --quiet
