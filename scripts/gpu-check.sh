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
    cp scripts/gpu-check.sh "$folder/gpu-check.sh"
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

# ---- the checks

names=()
declare -A about kind words

# define NAME KIND ABOUT COMMAND...: KIND is any, gpu (not in a rehearsal) or rehearsal (nowhere else).
define() {
    names+=("$1")
    kind[$1]=$2 about[$1]=$3 words[$1]=${*:4}
}

# What a wrong model takes is of no interest: golden vectors first, in seconds. Then what the machine is borrowed for.
# The tests take a minute or two in all, PyTorch's tuning that for a single row; the sanitizer is the slowest.
define doctor any "driver, libraries, a tiny model" doctor
define golden-small any "golden vectors, small" golden small
define golden-b32 any "golden vectors, base-patch32" golden base-patch32
define bench-b32-1 gpu "base-patch32, 1 window" bench 1 base-patch32
define bench-b32-8 gpu "base-patch32, 8 windows" bench 8 base-patch32
define bench-b32-64 gpu "base-patch32, 64 windows" bench 64 base-patch32
define bench-b16-1 gpu "base-patch16, 1 window" bench 1 base-patch16
define bench-b16-64 gpu "base-patch16, 64 windows" bench 64 base-patch16
define bench-small rehearsal "small, 2 windows" bench 2 small
define test-backend any "golden vectors, refusals, sizes" tests cuda_backend
define test-windows any "batches, graphs, labels" tests cuda_windows
define test-engine any "streams, a lost device" tests cuda_engine
define test-reduce any "pictures, from many threads" tests cuda_reduce
define test-detector any "streams, from pictures to scores" tests cuda_detector
define test-kernels any "kernels, one by one" tests cuda_kernels
define faults any "faults, on the emulated device" faults
define torch-b32-1 gpu "PyTorch beside us, base-patch32, 1 window" peers 1 base-patch32
define torch-b32-64 gpu "PyTorch beside us, base-patch32, 64 windows" peers 64 base-patch32
define torch-b32-8 gpu "PyTorch beside us, base-patch32, 8 windows" peers 8 base-patch32
define torch-b16-1 gpu "PyTorch beside us, base-patch16, 1 window" peers 1 base-patch16
define torch-b16-64 gpu "PyTorch beside us, base-patch16, 64 windows" peers 64 base-patch16
define torch-small rehearsal "PyTorch on the processor beside us, small" peers 2 small
define memcheck-kernels any "memcheck, kernels" sanitize memcheck cuda_kernels
define racecheck-kernels any "racecheck, kernels" sanitize racecheck cuda_kernels
define memcheck-backend any "memcheck, backend" sanitize memcheck cuda_backend small_holds two_backends
define memcheck-reduce any "memcheck, pictures" sanitize memcheck cuda_reduce
define racecheck-reduce any "racecheck, pictures" sanitize racecheck cuda_reduce
define racecheck-backend any "racecheck, backend" sanitize racecheck cuda_backend small_holds

is_quick() {
    case $1 in
        golden-* | bench-b32-1 | bench-small | test-* | faults) ;;
        *) return 1 ;;
    esac
}

# ---- what they run, each in a shell of its own with its log as output: `remark: …` is said in the table, `bar: …`
# ---- becomes a row, status 77 is skipped

# short VALUE: four digits of a number; what is none stays as it is.
short() {
    if [[ ${1:-} =~ ^[0-9] ]]; then printf '%.4g' "$1"; else printf '%s' "${1:-none}"; fi
}

# bar WHAT VALUE UNIT SIGN LIMIT: a row of the table. ≤ or ≥; the bars are an H100's.
bar() {
    local verdict="no figure" value="" note=""
    if [[ $2 =~ ^[0-9] ]]; then
        value=$(short "$2")${3:+ $3}
        verdict=$(awk -v value="$2" -v limit="$5" -v sign="$4" \
            'BEGIN { print (sign == "≤" ? value + 0 <= limit + 0 : value + 0 >= limit + 0) ? "met" : "MISSES" }')
    fi
    [[ $device = *H100* ]] || note="the bar is for an H100"
    echo "bar: $1|$verdict|$value|$4 $5${3:+ $3}|$note"
}

# figure KEY FILE [LINE]: the value of KEY in JSON with a key per line, of the first after LINE.
figure() {
    awk -v key="\"$1\":" -v line="${3:-}" '
        line == "" || index($0, line) { on = 1 }
        on && $1 == key { sub(/^[^:]*: */, ""); sub(/,$/, ""); gsub(/^"|"$/, ""); print; exit }' "$2"
}

doctor() {
    local said status=0
    said=$("$here/bin/xclipd" doctor 2>&1) || status=$?
    echo "$said"
    # Clocks and who else is on it, for whoever wonders about the figures.
    nvidia-smi 2>&1 || true
    echo "remark: $(sed -nE '/^graphics /s/^graphics +//p; /DIFFERENT|UNUSABLE|DAMAGED/p' <<<"$said" | paste -sd ';')"
    return "$status"
}

tests() {
    "$here/bin/$1" --test-threads 4
}

# What the emulated device is there to bring about; nothing else may fall back to it.
faults() {
    XCLIP_EMULATOR=$here/emulator env -u XCLIP_CUDA_LIB_DIR "$here/bin/cuda_faults" --test-threads 4
}

# weights MODEL: generates work/MODEL. What was begun and stopped is not taken for a model.
weights() {
    local source=$1
    [ "$1" != small ] || source=$here/root/tests/golden/small/config.json
    [ ! -e "$work/$1/model.safetensors" ] || return 0
    rm -rf "${work:?}/$1" "$work/$1.part"
    "$here/bin/xclipd" generate-weights "$source" "$work/$1.part"
    mv "$work/$1.part" "$work/$1"
}

golden() {
    local status=0
    weights "$1"
    "$here/bin/xclipd" verify --model "$work/$1" --golden "$here/root/tests/golden/$1/golden.safetensors" \
        --device cuda:0 | tee "$out" || status=$?
    echo "remark: video cosine $(awk '$1 == "video_embeds" { print $4 }' "$out"), logits within \
$(awk '$1 == "logits_per_video" { print $2 }' "$out")"
    return "$status"
}

bench() {
    local windows=$1 model=$2 all="all frames new" ms
    local source=(--config "$model")
    [ "$model" != small ] || { weights small && source=(--model "$work/small"); }
    "$here/bin/xclipd" bench "${source[@]}" --device cuda:0 --windows "$windows" --rounds "$rounds" --json | tee "$out"
    ms=$(figure median "$out" "\"windows, $all\"")
    [ -n "$ms" ] || { echo "remark: bench's JSON has no stage \"windows, $all\"" && return 1; }
    if [ "$(figure emulated "$out")" != false ]; then
        echo "remark: emulated: these times say nothing about any GPU"
        return 0
    fi
    case $model-$windows in
        base-patch32-1) bar "$all" "$ms" ms ≤ 0.60 ;;
        base-patch32-8) bar "$all" "$ms" ms ≤ 1.6 ;;
        base-patch32-64) bar "$all" "$ms" ms ≤ 11 ;;
        base-patch16-1) bar "$all" "$ms" ms ≤ 0.95 ;;
        base-patch16-64) bar "$all" "$ms" ms ≤ 42 ;;
    esac
    if [ "$windows" = 64 ]; then
        bar "of the product peak" "$(figure of_product "$out" "\"windows, $all\"")" "" ≥ 0.5
    else
        ms=$(figure median "$out" '"preprocess_ms"')
        bar "1080p NV12 to patch rows" "$(awk -v ms="$ms" 'BEGIN { if (ms != "") print 1000 * ms }')" µs ≤ 15
    fi
    bar "launches, one frame of each window new" "$(figure launches_per_batch "$out")" "" ≤ 4
    ! grep -q '"launches_all_new"' "$out" || bar "launches, $all" "$(figure launches_all_new "$out")" "" ≤ 4
    echo "remark: one frame of each new $(short "$(figure median "$out" '"windows, one frame')") ms;" \
        "peaks $(short "$(figure peak_product_tflop_per_s "$out")") TFLOP/s," \
        "$(short "$(figure peak_copy_gb_per_s "$out")") GB/s; $(figure backend "$out")"
}

peers() {
    local windows=$1 model=$2 why options=() status=0
    [ "$emulated" = no ] || options=(--rehearse)
    why=$("$python" - "${options[@]}" 2>&1 <<'END'
import sys
import numpy, torch, transformers
if not torch.cuda.is_available() and sys.argv[1:] != ["--rehearse"]:
    sys.exit(f"torch {torch.__version__} sees no GPU")
END
    ) || {
        echo "$why"
        echo "remark: $python: ${why##*$'\n'}"
        return 77
    }
    weights "$model"
    PYTHONUNBUFFERED=1 PYTHONUTF8=1 "$python" "$here/root/benches/peers/gpu.py" --xclipd "$here/bin/xclipd" \
        --work "$work" --json "$out" --model "$model" --windows "$windows" --rounds "$rounds" "${options[@]}" ||
        status=$?
    [ -e "$out" ] || return "$status"
    [ "$emulated" = yes ] || bar "÷ torch.compile f16" "$(figure ratio "$out")" "" ≤ 0.8
    echo "remark: ours $(short "$(figure ours_ms "$out")") ms, torch eager $(short "$(figure eager_ms "$out")")," \
        "torch.compile $(short "$(figure compile_ms "$out")"); torch $(figure torch "$out")$(figure notes "$out" | sed 's/^./; &/')"
    return "$status"
}

sanitizer() {
    local place
    ! command -v compute-sanitizer || return 0
    for place in /usr/local/cuda*/bin /usr/local/cuda*/compute-sanitizer /opt/cuda*/bin /opt/cuda*/extras/compute-sanitizer; do
        [ ! -x "$place/compute-sanitizer" ] || { echo "$place/compute-sanitizer" && return 0; }
    done
    return 1
}

# sanitize TOOL PROGRAM FILTER...: cuBLASLt's kernels are not ours to check, and slow to.
sanitize() {
    local tool=$1 program=$2 path help option=--kernel-name filters=() kernel status=0 why
    shift 2
    [ "$emulated" = no ] || { echo "remark: a rehearsal: it needs a GPU" && return 77; }
    path=$(sanitizer) || { echo "remark: no compute-sanitizer on PATH, in /usr/local/cuda* or in /opt/cuda*" && return 77; }
    help=$("$path" --help 2>&1) || true
    # Its name before CUDA 12.
    [[ $help = *$option* ]] || option=--kernel-regex
    while read -r kernel; do
        filters+=("$option" "kne=$kernel")
    done <"$here/root/kernels/names"
    # The backend asks for too much memory on purpose, and says so itself.
    [ "$tool" != memcheck ] || filters+=(--report-api-errors no)
    "$path" --tool "$tool" --error-exitcode 9 "${filters[@]}" "$here/bin/$program" --test-threads 1 "$@" 2>&1 |
        tee "$out" || status=$?
    if why=$(grep -aiE '^=+ .*(device not supported|unsupported driver version|sanitizer will be disabled)' "$out"); then
        echo "remark: the tool refuses this machine: ${why%%$'\n'*}"
        return 77
    fi
    echo "remark: our kernels only; $(grep -aE '^=+ (ERROR|RACECHECK) SUMMARY' "$out" | sed -E 's/^=+ //' | tail -n 1);" \
        "$(sed -nE 's/^test result: [a-zA-Z]+\. ([^;]*; [^;]*).*/\1/p' "$out" | tail -n 1)"
    return "$status"
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
        *) [ "$verdict" = skipped ] || remark+="; ${said:-$device}" ;;
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

# For the shells that a time limit is put on.
export -f short bar figure doctor tests faults weights golden bench peers sanitizer sanitize
export here work device emulated rounds python LC_ALL=C

# meet_device: doctor, and whether there is anything to go on with.
meet_device() {
    local facts
    attempt doctor
    device=$(sed -nE 's/^graphics +(cuda:0 .*)/\1/p' "$log" | head -n 1)
    if grep -q 'this device is EMULATED' "$log"; then
        emulated=yes rounds=1
        device="EMULATED $device"
    fi
    if [ -z "$device" ]; then
        device="no GPU"
        [ "${chosen[*]}" = faults ] || {
            pack_logs
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
    echo "$results/table.md, logs.tar.gz beside it; bars missed: $(grep -c '| MISSES |' "$table" || true)"
    [ "$failed" = 0 ] || exit 1
    [ "$unfinished" = 0 ] || exit 3
}

usage="usage: scripts/gpu-check.sh --build [FOLDER], or
       FOLDER/gpu-check.sh [--quick] [--deadline SECONDS] [--results FOLDER] [CHECK…], or --list"
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
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
