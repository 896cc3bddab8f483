#!/usr/bin/env bash
# Installs what is needed and shows the method at work: scripts/demo.sh [--seeds 1 2 3] [--root DIR]
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/env.sh
use_environment requirements.txt
exec "$PYTHON" scripts/demo.py "$@"
