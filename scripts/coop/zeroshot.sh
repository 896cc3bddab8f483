#!/usr/bin/env bash
# Zero-shot CLIP: scripts/coop/zeroshot.sh DATASET CONFIG (rn50, rn101, vit_b32 or vit_b16)
#   scripts/coop/zeroshot.sh caltech101 rn50
set -euo pipefail
. "$(dirname "$0")/../sweep.sh"
[ $# -ge 2 ] || usage "scripts/coop/zeroshot.sh DATASET CONFIG [flags]"
sweep fewshot --trainers ZeroshotCLIP --datasets "$1" --recipe "CoOp/$2" "${@:3}"
