#!/usr/bin/env bash
# Installs what the tests need and runs them: scripts/test.sh [--quick] [pytest arguments]
#
# --quick leaves out the tests marked `slow`, and runs two cases of each other one: two minutes on two
# cores. Where torch sees a GPU, the tests marked `gpu` run after the others, in one process.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/env.sh
use_environment requirements-test.txt

fast="" cases=0
if [ "${1:-}" = --quick ]; then
    fast="not slow and " cases=2
    shift
fi
"$PYTHON" -m ruff check .
"$PYTHON" -m ruff format --check .
"$PYTHON" -m mypy
CUDA_VISIBLE_DEVICES="" \
    "$PYTHON" -m pytest -q -n auto --dist worksteal --cases "$cases" -m "${fast}not gpu" "$@"
if "$PYTHON" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then
    "$PYTHON" -m pytest -q --cases "$cases" -m "${fast}gpu" "$@" || [ $? -eq 5 ] # 5: no such test among these
fi
