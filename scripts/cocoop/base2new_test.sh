#!/usr/bin/env bash
# What base2new_train.sh learned, on new and on all classes: base2new_test.sh DATASET SEED [flags]
set -euo pipefail
. "$(dirname "$0")/../sweep.sh"
[ $# -ge 2 ] || usage "scripts/cocoop/base2new_test.sh DATASET SEED [flags]"
sweep base2new --trainers "${TRAINER:-CoCoOp}" --datasets "$1" --seeds "$2" --only test "${@:3}"
