#!/usr/bin/env bash
# CoCoOp on the base classes: scripts/cocoop/base2new_train.sh DATASET SEED [flags]
set -euo pipefail
. "$(dirname "$0")/../sweep.sh"
[ $# -ge 2 ] || usage "scripts/cocoop/base2new_train.sh DATASET SEED [flags]"
sweep base2new --trainers "${TRAINER:-CoCoOp}" --datasets "$1" --seeds "$2" --only train "${@:3}"
