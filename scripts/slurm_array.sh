#!/usr/bin/env bash
# One part of a sweep per task of a SLURM job array; the parts are disjoint, a training and its
# evaluations stay together. Submit from the repository root, as often as you like: what is finished
# is not repeated, what was cut off is resumed.
#
#   DATA=~/data sbatch --array=0-15 scripts/slurm_array.sh cocoop-1
#   python -m sweep status; python -m sweep table cocoop-1
#
#SBATCH --job-name=sweep
#SBATCH --gres=gpu:1
#SBATCH --cpus-per-task=8
#SBATCH --mem=32G
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --output=slurm-%A_%a.out
set -euo pipefail
[ $# -ge 1 ] || { echo "usage: sbatch --array=0-15 scripts/slurm_array.sh WHAT [flags]" >&2; exit 2; }
cd "${SLURM_SUBMIT_DIR:-$(dirname "${BASH_SOURCE[0]}")/..}"
shard="${SLURM_ARRAY_TASK_ID:-0}/${SLURM_ARRAY_TASK_COUNT:-1}"
exec "${PYTHON:-python}" -m sweep run "$1" --root "${DATA:-data}" \
    --output "${OUTPUT:-output/sweep}" --shard "$shard" "${@:2}"
