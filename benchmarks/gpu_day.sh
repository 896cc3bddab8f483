#!/usr/bin/env bash
# Measures and proves on a GPU what only a GPU can show: benchmarks/gpu_day.sh --help
#
# It installs nothing and needs no network; docs/performance.md says what to bring along.
set -euo pipefail
cd "$(dirname "$0")/.."
exec "${PYTHON:-python3}" -m benchmarks.gpu_day "$@"
