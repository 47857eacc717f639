# Sourced by gpu-check.sh: the checks, in the order in which they run, and what each runs.
# shellcheck shell=bash disable=SC2034,SC2154  # used by gpu-check.sh, which sets here, work, device, emulated, rounds, out

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
define micro-b32-64 gpu "base-patch32, 64 windows, fewer at a time" micro 64 base-patch32
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

# What follows runs in a shell of its own, with its log as output: `remark: …` is said in the table, `bar: …` becomes a
# row, status 77 is skipped. `out` is a file for what a program says to this script.

# short VALUE: four digits of a number; what is none stays as it is.
short() {
    if [[ ${1:-} =~ ^[0-9] ]]; then printf '%.4g' "$1"; else printf '%s' "${1:-none}"; fi
}

# bar WHAT VALUE UNIT SIGN LIMIT: a row of the table. ≤ or ≥; the bars are an H100's, but launches are any GPU's.
bar() {
    local verdict="no figure" value="" note=""
    if [[ $2 =~ ^[0-9] ]]; then
        value=$(short "$2")${3:+ $3}
        verdict=$(awk -v value="$2" -v limit="$5" -v sign="$4" \
            'BEGIN { print (sign == "≤" ? value + 0 <= limit + 0 : value + 0 >= limit + 0) ? "met" : "MISSES" }')
    fi
    [[ $device = *H100* || $1 = launches* ]] || note="the bar is for an H100"
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
    if command -v nvidia-smi >/dev/null; then nvidia-smi 2>&1 || true; fi
    echo "remark: $(sed -nE '/^graphics /s/^graphics +//p; /MISSING,|DIFFERENT|UNUSABLE|DAMAGED/p' <<<"$said" | paste -sd ';')"
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
    elif [ "$windows" = 1 ]; then
        ms=$(figure median "$out" '"preprocess_ms"')
        bar "1080p NV12 to patch rows" "$(awk -v ms="$ms" 'BEGIN { if (ms != "") print 1000 * ms }')" µs ≤ 15
    fi
    bar "launches, one frame of each window new" "$(figure launches_per_batch "$out")" "" ≤ 4
    bar "launches, $all" "$(figure launches_all_new "$out")" "" ≤ 4
    echo "remark: at most $(figure micro "$out") windows pass together; one frame of each new $(short "$(figure median "$out" '"windows, one frame')") ms;" \
        "peaks $(short "$(figure peak_product_tflop_per_s "$out")") TFLOP/s," \
        "$(short "$(figure peak_copy_gb_per_s "$out")") GB/s; $(figure backend "$out")"
}

# micro WINDOWS MODEL: what the number of windows that pass together does; the program's own choice fits the L2 cache.
micro() {
    local number all=()
    for number in 4 8 16 32; do
        "$here/bin/xclipd" bench --config "$2" --device cuda:0 --windows "$1" --rounds 20 --micro "$number" --json |
            tee "$out"
        all+=("$number: $(short "$(figure median "$out" '"windows, all frames new"')") ms")
    done
    echo "remark: $(printf '%s; ' "${all[@]}")each with its number of windows at a time"
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
    # Its former name.
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

# For the shells that a time limit is put on.
export -f short bar figure doctor tests faults weights golden bench micro peers sanitizer sanitize
export here work device emulated rounds python LC_ALL=C
