#!/usr/bin/env bash
# CoCoOp on all classes of ImageNet: scripts/cocoop/xd_train.sh SEED [flags]
#   scripts/cocoop/xd_train.sh 1; another dataset: scripts/cocoop/xd_train.sh caltech101 1
set -euo pipefail
. "$(dirname "$0")/../sweep.sh"
[[ "${1:-}" =~ ^[0-9]+$ ]] && set -- imagenet "$@"
[ $# -ge 2 ] || usage "scripts/cocoop/xd_train.sh [DATASET] SEED [flags]"
sweep crossdataset --trainers "${TRAINER:-CoCoOp}" --source "$1" --seeds "$2" --only train "${@:3}"
