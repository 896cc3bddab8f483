#!/usr/bin/env bash
# What xd_train.sh learned on ImageNet, on another dataset: xd_test.sh DATASET SEED [flags]
#   scripts/cocoop/xd_test.sh caltech101 1; scripts/cocoop/xd_test.sh imagenet_r 1
set -euo pipefail
. "$(dirname "$0")/../sweep.sh"
[ $# -ge 2 ] || usage "scripts/cocoop/xd_test.sh DATASET SEED [flags]"
sweep crossdataset --trainers "${TRAINER:-CoCoOp}" --datasets "$1" --seeds "$2" --only test "${@:3}"
