# Sourced by the scripts beside it: strict mode, and steps that say what they do and how long it took.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# fail MESSAGE...: one message, status 1.
fail() {
    echo "error: $*" >&2
    exit 1
}

# step NAME COMMAND...: runs it under a heading; prints the seconds it took, stops on a failure.
step() {
    local name=$1 begun=$SECONDS status=0
    shift
    echo "==> $name"
    # In a subshell and not behind ||, which would turn -e off in the function.
    set +e
    (set -e && "$@")
    status=$?
    set -e
    if [ "$status" -ne 0 ]; then
        echo "==> $name: FAILED (status $status) after $((SECONDS - begun)) s"
        exit "$status"
    fi
    echo "==> $name: $((SECONDS - begun)) s"
}

# target_dir: where cargo builds, which the user may have moved.
target_dir() {
    cargo metadata --format-version 1 --no-deps --locked | sed 's/.*"target_directory":"\([^"]*\)".*/\1/'
}
