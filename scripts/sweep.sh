# Source this: `sweep WHAT FLAGS...` runs `python -m sweep run` from the repository root.
#
# Data and results: $DATA (default: data) and $OUTPUT (default: output/sweep), or the flags --root
# and --output at the end of any script's arguments; all other flags of `python -m sweep run` work
# there, too, such as --jobs 2, --dry-run, or --opts KEY VALUE (last).

cd "$(dirname "${BASH_SOURCE[0]}")/.."

usage() {
    echo "usage: $1" >&2
    exit 2
}

sweep() {
    local what="$1"
    shift
    exec "${PYTHON:-python}" -m sweep run "$what" \
        --root "${DATA:-data}" --output "${OUTPUT:-output/sweep}" "$@"
}
