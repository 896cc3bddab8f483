#!/usr/bin/env bash
# CoOp learned on ImageNet (16 shots, M=16), tested elsewhere: scripts/coop/eval.sh DATASET CONFIG
#   scripts/coop/eval.sh imagenetv2 rn50_ep50
# Trains what is not trained yet; with --only test it does not.
set -euo pipefail
. "$(dirname "$0")/../sweep.sh"
[ $# -ge 2 ] || usage "scripts/coop/eval.sh DATASET CONFIG [flags]"
sweep domain --trainers CoOp --datasets "$1" --recipe "CoOp/$2" --position end --ctx 16 \
    --csc False --seeds 1 2 3 "${@:3}"
