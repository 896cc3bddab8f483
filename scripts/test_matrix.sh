#!/usr/bin/env bash
# Runs the tests that are not slow with the lowest PyTorch promised and with the newest:
# scripts/test_matrix.sh [pytest arguments]. Prints a table and writes it to docs/versions.md.
#
# Each version has an environment of its own, of several GB, in $MATRIX_HOME (default: .matrix).
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/env.sh
home="${MATRIX_HOME:-.matrix}"
mkdir -p "$home"
home="$(cd "$home" && pwd)"
table="$home/table.md"
failures=0

count() { # count WORD LINE: of "3 failed, 12 passed in 4.56s", "passed" gives 12
    { grep -oE "[0-9]+ $1" <<<"$2" || true; } | awk '{ sum += $1 } END { print sum + 0 }'
}

row() { # row NAME REQUIREMENT...
    local name="$1" python="$home/$1/bin/python" last versions
    shift
    [ -x "$python" ] || create_environment "$home/$name"
    "$python" -m pip install --quiet --disable-pip-version-check --upgrade \
        -r requirements-test.txt "$@"
    "$python" -m pytest -q -n auto --dist worksteal -m "not slow and not gpu" "${arguments[@]}" |
        tee "$home/$name.log" || failures=1
    last="$(tail -n 1 "$home/$name.log")"
    versions="$("$python" -c 'import platform as p, torch, torchvision as v
print(p.python_version(), torch.__version__, v.__version__, sep=" | ")')"
    echo "| $versions | $(count passed "$last") | $(count '(failed|error)' "$last")" \
        "| $(count skipped "$last") | $(sed -E 's/.* in ([0-9]+).*/\1/' <<<"$last") |" >>"$table"
}

arguments=("$@")
cat >"$table" <<'HEAD'
| Python | torch | torchvision | passed | failed | skipped | seconds |
|---|---|---|---|---|---|---|
HEAD
row lowest "torch==2.6.0" "torchvision==0.21.0"
row newest torch torchvision

cat "$table"
awk -v table="$table" '
    /<!-- end -->/ { inside = 0 }
    !inside { print }
    /<!-- matrix -->/ { inside = 1; while ((getline line < table) > 0) print line }
' docs/versions.md >"$table.new"
cat "$table.new" >docs/versions.md
exit "$failures"
