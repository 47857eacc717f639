#!/usr/bin/env bash
# Everything that needs a GPU, in one folder and one table.
#
# scripts/gpu-check.sh --build [FOLDER]   where Rust is: makes FOLDER (default target/gpu-check) with programs, tests
#                                         and golden vectors, without GStreamer, and FOLDER.tar.xz of it, to be
#                                         carried to the machine with the GPU
# FOLDER/gpu-check.sh [--quick] [--deadline SECONDS] [--results FOLDER] [CHECK…]
#                                         there: needs the NVIDIA driver, cuBLASLt 12 or 13 (also of a Python
#                                         package) and bash 4.4; compute-sanitizer and Python with torch and
#                                         transformers are used if they are there
# FOLDER/gpu-check.sh --list              the checks, in the order in which they run
#
# CHECK is a name of --list, or all that it stands before: `bench` is bench-b32-1, bench-b32-8 and so on. A machine
# that is borrowed by the minute goes away when it likes: the most telling checks come first, each row is in
# results/table.md as soon as it is made, and another call with other checks adds its rows to the same table.
# Past the deadline rows say "not run". results/logs.tar.gz has all that was printed; nothing else there is needed.
# Status: 0 all that ran is well, 1 something FAILED, 3 not everything was run. A bar that is missed is marked, not
# failed.
#
# --quick leaves out the sanitizer, the large batches and PyTorch. PYTHON names the interpreter (python3).
# XCLIP_CUDA_LIB_DIR names the libraries' folder: with FOLDER/emulator everything but figures can be rehearsed
# without a GPU. PROFILE=dev builds faster for that.
# shellcheck disable=SC1091,SC2034,SC2154  # names, kind, about and words are gpu-checks.sh's, which takes others from here
set -euo pipefail

fail() {
    echo "error: $*" >&2
    exit 2
}

# ---- where Rust is

tests=(cuda_backend cuda_windows cuda_engine cuda_kernels cuda_faults cuda_reduce cuda_detector)

# built ARGUMENTS...: what cargo builds with these, as lines NAME PATH.
built() {
    cargo "$@" --locked --no-default-features --features cuda --message-format=json |
        sed -nE 's/.*"target":\{[^}]*"name":"([^"]*)".*"executable":"([^"]*)".*/\1 \2/p'
}

# kernels: the names of all of ours, of which the sanitizer speaks.
kernels() {
    cat kernels/*.cu | tr '\n' ' ' |
        grep -oE 'extern "C" __global__ void( __launch_bounds__\([0-9, ]+\))? +[a-z0-9_]+ *\(' |
        sed -E 's/.* ([a-z0-9_]+) *\($/\1/'
}

build() {
    cd "$(dirname "${BASH_SOURCE[0]}")/.."
    local target name path profile=${PROFILE:-release} commit
    target=$(cargo metadata --format-version 1 --no-deps --locked | sed 's/.*"target_directory":"\([^"]*\)".*/\1/')
    local folder=${1:-$target/gpu-check}
    [ ! -e "$folder" ] || [ -e "$folder/gpu-check.sh" ] || fail "$folder is there and was not made by --build"
    command -v xz >/dev/null || fail "xz is missing (apt-get install xz-utils)"
    rm -rf "$folder" "$folder.tar.xz"
    mkdir -p "$folder/bin" "$folder/root/tests" "$folder/root/kernels" "$folder/root/benches"
    commit=$(git describe --always --dirty 2>/dev/null) || commit="unknown sources"
    # Tests come with an xclipd of their own profile; the optimised one, built after it, takes its place.
    {
        # shellcheck disable=SC2046  # words are meant
        built test --no-run $(printf -- '--test %s ' "${tests[@]}")
        built build --profile "$profile" --bin xclipd
    } | while read -r name path; do
        cp "$path" "$folder/bin/$name"
    done
    for name in xclipd "${tests[@]}"; do
        [ -e "$folder/bin/$name" ] || fail "cargo built no $name; see its output above"
    done
    strip "$folder"/bin/*
    tests/emulator/build.sh "$folder/emulator"
    rm -f "$folder/emulator/.lock"
    cp -r tests/golden "$folder/root/tests/golden"
    cp -r kernels/cubins "$folder/root/kernels/cubins"
    kernels >"$folder/root/kernels/names"
    cp -r benches/peers "$folder/root/benches/peers"
    cp scripts/gpu-check.sh scripts/gpu-checks.sh "$folder"
    find "$folder" -name __pycache__ -prune -exec rm -rf {} +
    echo "$commit, $profile" >"$folder/built-from"
    # Every program has the same library, model and kernels in it: one window over all of them.
    tar -C "$(dirname "$folder")" --sort=name --owner=0 --group=0 -cf - "$(basename "$folder")" |
        xz -T1 --lzma2=preset=6,dict=128MiB >"$folder.tar.xz"
    name=$(basename "$folder")
    cat <<END
$folder: $(du -sh "$folder" | cut -f1), built from $commit, $profile
$folder.tar.xz: $(awk -v bytes="$(stat -c %s "$folder.tar.xz")" 'BEGIN { printf "%.1f MiB", bytes / 1048576 }'). On the machine with the GPU:
    tar -xJf $name.tar.xz        # without xz: python3 -m tarfile -e $name.tar.xz
    $name/gpu-check.sh --list
    $name/gpu-check.sh --deadline 500
END
}

# ---- where the GPU is

failed=0 unfinished=0 running="" current="" deadline="" device="" emulated=no rounds=60
# Seconds that one check may take.
limit=900

seconds_left() {
    [ -z "$deadline" ] || echo $((deadline - SECONDS))
}

# record NAME VERDICT SECONDS REMARK [LOG]: into the table, in place of the check's former rows; LOG has its bars.
record() {
    local name=$1 block label verdict value limit note
    block="| $name | ${about[$name]} | $2 | ${3:+$3 }| | | ${4//|//} |"
    if [ -n "${5:-}" ]; then
        while IFS='|' read -r label verdict value limit note; do
            block+=$'\n'"| $name: $label | | $verdict | | $value | $limit | $note |"
        done < <(sed -n 's/^bar: //p' "$5")
    fi
    NAME=$name BLOCK=$block awk '
        index($0, "| " ENVIRON["NAME"] " |") == 1 || index($0, "| " ENVIRON["NAME"] ": ") == 1 {
            if (!put++) print ENVIRON["BLOCK"]
            next
        }
        { print }
        END { if (!put) print ENVIRON["BLOCK"] }' "$table" >"$table.new"
    mv "$table.new" "$table"
    [ "$2" = begun ] || echo "$block"
}

# bars: how many of the table's were met.
bars() {
    awk -F'|' '{ n[$4]++ } END { printf "bars: %d met, %d missed, %d without a figure\n",
        n[" met "], n[" MISSES "], n[" no figure "] }' "$table"
}

pack_logs() {
    tar -C "$here" -czf "$results/logs.tar.gz" logs
}

# attempt NAME: runs it; verdict, took and remark are what came of it.
attempt() {
    local name=$1 begun=$SECONDS status=0 most=$limit left names_failed command
    log=$logs/$name.log out=$logs/$name.out verdict=FAILED remark=""
    left=$(seconds_left)
    [ -z "$left" ] || [ "$left" -ge "$most" ] || most=$left
    rm -f "$log" "$out"
    read -ra command <<<"${words[$name]}"
    export log out
    timeout --kill-after=5 "$most" bash -euo pipefail -c '"$@"' check "${command[@]}" >"$log" 2>&1 &
    running=$!
    wait "$running" || status=$?
    running="" took=$((SECONDS - begun))
    remark=$(sed -nE '/^(remark: |test result:)/ {
        s/^remark: //; s/^test result: [a-zA-Z]+\. //; s/; [0-9]+ ignored.*//; p }' "$log" | tail -n 1)
    case $status in
        0) verdict=ok ;;
        77) verdict=skipped ;;
        124 | 137)
            remark="not done after $took s${remark:+; $remark}"
            if [ "$most" != "$limit" ]; then
                verdict=stopped remark="the deadline came; $remark" unfinished=1
            fi
            ;;
    esac
    if [ "$verdict" = FAILED ]; then
        failed=1
        # The names of tests are under the last `failures:`.
        names_failed=$(sed -nE '/^failures:$/ { s/.*//; h }; /^    [a-z0-9_:]+$/H; $ { x; s/\n */ /g; p }' "$log")
        remark="${remark:-status $status}${names_failed:+:$names_failed}"
        tail -n 25 "$log" | sed 's/^/    /'
    elif grep -aq '^SKIPPED' "$log"; then
        remark="$remark; $(grep -ac '^SKIPPED' "$log") SKIPPED"
    fi
}

# The device that a check ran on is in its remark, as the program says or else as doctor saw it.
with_device() {
    local said
    said=$(sed -nE 's/^device: //p' "$log" | tail -n 1)
    case $1 in
        faults) remark+="; the emulated device" ;;
        doctor | bench-* | torch-*) ;;
        *) [ "$verdict" = skipped ] || remark+="; ${said:-${device%%,*}}" ;;
    esac
}

# open_table: the one that is there, if it is of this device and build.
open_table() {
    local head=$1 number=1
    if [ -e "$table" ]; then
        [ "$(head -n 3 "$table")" != "$head" ] || return 0
        while [ -e "$results/table.$number.md" ]; do number=$((number + 1)); done
        mv "$table" "$results/table.$number.md"
        echo "the table of another device or build is now $results/table.$number.md"
    fi
    printf '%s\n\nbegun %s\n\n%s\n%s\n' "$head" "$(date -u '+%F %H:%M UTC')" \
        '| check | what | result | s | value | bar | remark |' '|---|---|---|---|---|---|---|' >"$table"
}

stopped() {
    trap '' INT TERM HUP
    if [ -n "$running" ]; then
        kill "$running" 2>/dev/null || true
        wait "$running" || true
    fi
    [ -z "$current" ] || record "$current" stopped "" "by a signal"
    pack_logs
    exit 3
}

list() {
    local name
    for name in "${names[@]}"; do
        printf '%-18s %s\n' "$name" "${about[$name]}$([ "${kind[$name]}" != rehearsal ] || echo " (in a rehearsal)")"
    done
}

# select_checks QUICK CHECK...: sets chosen, and asked[NAME] for those named in full.
select_checks() {
    local quick=$1 name wanted found
    shift
    declare -gA asked=() taken=()
    chosen=()
    for wanted in "$@"; do
        found=no
        for name in "${names[@]}"; do
            case $name in
                "$wanted") asked[$name]=yes ;;
                "$wanted"-*) ;;
                *) continue ;;
            esac
            taken[$name]=yes found=yes
        done
        [ "$found" = yes ] || fail "no check is called $wanted; $0 --list names them"
    done
    for name in "${names[@]}"; do
        if [ $# -gt 0 ]; then
            [ -n "${taken[$name]:-}" ] || continue
        elif [ "$quick" = yes ]; then
            is_quick "$name" || continue
        fi
        [ "$name" = doctor ] || chosen+=("$name")
    done
}

# meet_device: doctor, and whether there is anything to go on with.
meet_device() {
    local facts
    attempt doctor
    device=$(sed -nE 's/^graphics +(cuda:0 .*)/\1/p' "$log" | head -n 1)
    if grep -q 'this device is EMULATED' "$log"; then
        emulated=yes rounds=1
        device="EMULATED $device"
    fi
    if [ -z "$device" ] || grep -q '^cuBLASLt *MISSING' "$log"; then
        device="no GPU"
        [ "$verdict" != stopped ] || {
            pack_logs
            echo "error: xclipd doctor was not done when the deadline came; nothing else was run" >&2
            exit 3
        }
        [ "${chosen[*]}" = faults ] || {
            pack_logs
            remark=${remark#not used, the model runs on the processor: }
            echo "error: no GPU can be used here: ${remark:-xclipd doctor says nothing, see $log}; nothing else was" \
                "run. Without a GPU there are \`$0 faults\` and the rehearsal, XCLIP_CUDA_LIB_DIR=$here/emulator" >&2
            exit 1
        }
        verdict=skipped failed=0
    fi
    facts=$(sed -nE 's/^(driver|cuBLASLt|kernels) +(.*)/\1 \2/p' "$log" | paste -sd ';' | sed 's/;/; /g')
    open_table "# $([ "$emulated" = no ] && echo "GPU check: $device" ||
        echo "REHEARSAL on the emulated device: no figures, no large batches")

${facts:-no driver}; built from $(cat "$here/built-from")"
    record doctor "$verdict" "$took" "$remark"
}

run() {
    local name site
    [ -x "$here/bin/xclipd" ] || fail "$here has no bin/xclipd; make the folder with scripts/gpu-check.sh --build"
    work=$here/work logs=$here/logs table=$results/table.md python=${PYTHON:-python3}
    mkdir -p "$results" "$work" "$logs"
    results=$(cd "$results" && pwd)
    table=$results/table.md
    unset XCLIP_EMULATOR
    export XCLIP_TEST_ROOT=$here/root XCLIP_TEST_XCLIPD=$here/bin/xclipd
    # cuBLASLt of a Python package is found by the package's folder.
    if [ -z "${XCLIP_CUDA_LIB_DIR:-}" ] &&
        site=$("$python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))' 2>/dev/null) &&
        [ -d "$site/nvidia" ]; then
        export XCLIP_CUDA_LIB_DIR=$site
    fi
    trap stopped INT TERM HUP
    meet_device
    for name in "${chosen[@]}"; do
        case ${kind[$name]}-$emulated in
            gpu-yes | rehearsal-no)
                # Of a group only what fits.
                [ -z "${asked[$name]:-}" ] || record "$name" skipped "" "$([ "$emulated" = yes ] &&
                    echo "too much for the emulated device" || echo "for a rehearsal only")"
                continue
                ;;
        esac
        if [ -n "$deadline" ] && [ "$(seconds_left)" -lt 5 ]; then
            unfinished=1
            # What an earlier call found still holds.
            grep -qE "^\| $name \| [^|]* \| (ok|FAILED|skipped) \|" "$table" || record "$name" "not run" "" "past the deadline"
            continue
        fi
        current=$name
        record "$name" begun "" "and not ended"
        attempt "$name"
        with_device "$name"
        record "$name" "$verdict" "$took" "$remark" "$log"
        current=""
        pack_logs
    done
    pack_logs
    echo
    cat "$table"
    echo
    echo "$results/table.md, logs.tar.gz beside it; $(bars)"
    [ "$failed" = 0 ] || exit 1
    [ "$unfinished" = 0 ] || exit 3
}

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
source "$here/gpu-checks.sh"
usage="usage: scripts/gpu-check.sh --build [FOLDER], or
       FOLDER/gpu-check.sh [--quick] [--deadline SECONDS] [--results FOLDER] [CHECK…], or --list"
results=$here/results quick=no wanted=()
while [ $# -gt 0 ]; do
    case $1 in
        --build)
            build "${2:-}"
            exit
            ;;
        --list)
            list
            exit
            ;;
        --quick) quick=yes ;;
        --deadline)
            [[ ${2:-} =~ ^[1-9][0-9]*$ ]] || fail "--deadline takes seconds, not '${2:-}'"
            deadline=$2
            shift
            ;;
        --results)
            [ -n "${2:-}" ] || fail "--results takes a folder"
            results=$2
            shift
            ;;
        -*) fail "$usage" ;;
        *) wanted+=("$1") ;;
    esac
    shift
done
[ "$quick" = no ] || [ ${#wanted[@]} = 0 ] || fail "--quick is a choice of checks itself: name none beside it"
select_checks "$quick" "${wanted[@]}"
run
