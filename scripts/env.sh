# Source this: `use_environment FILE` leaves $PYTHON ready with FILE's packages installed.
#
# An active virtual environment is used; without one, .venv is created in the repository. A stamp
# with the checksum of the requirements makes the second call cost nothing.

use_environment() {
    local requirements="$1" stamp want
    if [ -z "${VIRTUAL_ENV:-}" ]; then
        VIRTUAL_ENV="$PWD/.venv"
        [ -x "$VIRTUAL_ENV/bin/python" ] || create_environment "$VIRTUAL_ENV"
    fi
    export VIRTUAL_ENV
    PYTHON="$VIRTUAL_ENV/bin/python"
    stamp="$VIRTUAL_ENV/.installed-$(basename "$requirements")"
    want="$(cat requirements*.txt | cksum)"
    if [ "$(cat "$stamp" 2>/dev/null)" != "$want" ]; then
        echo "Installing $requirements into $VIRTUAL_ENV (PyTorch is large; this can take minutes)"
        "$PYTHON" -m pip install --quiet --disable-pip-version-check -r "$requirements"
        echo "$want" >"$stamp"
    fi
}

create_environment() {
    local candidate
    for candidate in python3.12 python3.13 python3.11 python3.10 python3 python; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; then
            echo "Creating a virtual environment in $1 with $("$candidate" --version)"
            "$candidate" -m venv "$1" && return
        fi
    done
    echo "error: Python 3.10 or newer with the venv module was not found; install it first" >&2
    exit 2
}
