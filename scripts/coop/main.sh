#!/usr/bin/env bash
# CoOp, few shots: scripts/coop/main.sh DATASET CONFIG POSITION NCTX SHOTS CSC [flags]
#   scripts/coop/main.sh caltech101 rn50_ep50 end 16 1 False
set -euo pipefail
. "$(dirname "$0")/../sweep.sh"
[ $# -ge 6 ] || usage "scripts/coop/main.sh DATASET CONFIG end|middle NCTX SHOTS True|False [flags]"
sweep fewshot --trainers CoOp --datasets "$1" --recipe "CoOp/$2" --position "$3" --ctx "$4" \
    --shots "$5" --csc "$6" --seeds 1 2 3 "${@:7}"
