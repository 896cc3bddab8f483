#!/usr/bin/env bash
# CoCoOp on all classes of ImageNet: scripts/cocoop/xd_train.sh DATASET SEED [flags]
#   scripts/cocoop/xd_train.sh imagenet 1
set -euo pipefail
. "$(dirname "$0")/../sweep.sh"
[ $# -ge 2 ] || usage "scripts/cocoop/xd_train.sh DATASET SEED [flags]"
sweep crossdataset --trainers "${TRAINER:-CoCoOp}" --source "$1" --seeds "$2" --only train "${@:3}"
