#!/usr/bin/env bash
# Installs what the tests need and runs them: scripts/test.sh [pytest arguments]
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/env.sh
use_environment requirements-test.txt

"$PYTHON" -m ruff check .
"$PYTHON" -m ruff format --check .
exec "$PYTHON" -m pytest -q "$@"
