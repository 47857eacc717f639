#!/usr/bin/env bash
# Everything that needs a GPU, in one folder and one table.
#
# scripts/gpu-check.sh --build [FOLDER]   where Rust is: makes FOLDER (default target/gpu-check) with programs, tests
#                                         and golden vectors, without GStreamer; carry it to the machine with the GPU
# FOLDER/gpu-check.sh [--quick]           there: needs the NVIDIA driver, cuBLASLt 12 or 13 (also of a Python
#                                         package) and bash; compute-sanitizer and Python with torch and transformers
#                                         are used if they are there. Logs and table go to FOLDER/results
#
# --quick leaves out the sanitizer, the large batches and PyTorch. XCLIP_CUDA_LIB_DIR names the libraries' folder:
# with FOLDER/emulator everything but figures can be rehearsed. PROFILE=dev builds faster for that.
set -euo pipefail

fail() {
    echo "error: $*" >&2
    exit 1
}

# ---- where Rust is

# built ARGUMENTS...: what cargo builds with these, as lines NAME PATH.
built() {
    cargo "$@" --locked --no-default-features --features cuda --message-format=json |
        sed -nE 's/.*"target":\{[^}]*"name":"([^"]*)".*"executable":"([^"]*)".*/\1 \2/p'
}

build() {
    cd "$(dirname "${BASH_SOURCE[0]}")/.."
    local target name path profile=${PROFILE:-release}
    target=$(cargo metadata --format-version 1 --no-deps --locked | sed 's/.*"target_directory":"\([^"]*\)".*/\1/')
    local folder=${1:-$target/gpu-check}
    rm -rf "$folder"
    mkdir -p "$folder/bin" "$folder/root/tests" "$folder/root/kernels"
    # Tests come with an xclipd of their own profile; the optimised one, built after it, takes its place.
    {
        built test --no-run --test cuda_backend --test cuda_windows --test cuda_engine --test cuda_kernels \
            --test cuda_faults --test cuda_reduce --test cuda_detector
        built build --profile "$profile" --bin xclipd
    } | while read -r name path; do
        cp "$path" "$folder/bin/$name"
    done
    for name in xclipd cuda_backend cuda_windows cuda_engine cuda_kernels cuda_faults cuda_reduce cuda_detector; do
        [ -e "$folder/bin/$name" ] || fail "cargo built no $name; see its output above"
    done
    strip "$folder"/bin/*
    tests/emulator/build.sh "$folder/emulator"
    rm -f "$folder/emulator/.lock"
    cp -r tests/golden "$folder/root/tests/golden"
    cp -r kernels/cubins "$folder/root/kernels/cubins"
    mkdir -p "$folder/root/benches"
    cp -r benches/peers "$folder/root/benches/peers"
    cp scripts/gpu-check.sh "$folder/gpu-check.sh"
    find "$folder" -name __pycache__ -prune -exec rm -rf {} +
    echo "$folder: $(du -sh "$folder" | cut -f1); there: gpu-check.sh"
}

# ---- where the GPU is

rows=() failed=0

# check NAME LOG COMMAND...: one row of the table. Status 77 of the command means skipped; its last line says why.
check() {
    local name=$1 log=$results/$2.log begun=$SECONDS status=0 verdict remark=""
    shift 2
    printf '%s … ' "$name"
    timeout 1800 bash -euo pipefail -c '"$@"' check "$@" >"$log" 2>&1 || status=$?
    case $status in
        0) verdict=ok ;;
        77) verdict=skipped ;;
        124) verdict=FAILED remark="not done after 1800 s" ;;
        *) verdict=FAILED ;;
    esac
    [ -n "$remark" ] || remark=$(sed -nE '/^(remark: |test result:)/ {
        s/^remark: //; s/^test result: [a-zA-Z]+\. //; s/; [0-9]+ ignored.*//; p }' "$log" | tail -n 1)
    if [ "$verdict" = ok ] && grep -aq '^SKIPPED' "$log"; then
        remark="$remark; $(grep -ac '^SKIPPED' "$log") skipped, see $(basename "$log")"
    fi
    [ "$verdict" != FAILED ] || { failed=1 && remark="$remark (see $log)"; }
    echo "$verdict, $((SECONDS - begun)) s"
    rows+=("| $name | $verdict | $((SECONDS - begun)) | $remark |")
}

doctor() {
    "$here/bin/xclipd" doctor | tee "$results/doctor.out"
    grep -q '^graphics .*cuda:0' "$results/doctor.out" || {
        echo "remark: no GPU was found"
        return 1
    }
    echo "remark: $(sed -n 's/^graphics  *//p' "$results/doctor.out" | head -n 1)"
}

tests() {
    "$here/bin/$1" --test-threads "${2:-4}"
}

# verify FOLDER GOLDEN
verify() {
    "$here/bin/xclipd" verify --model "$1" --golden "$2" --device cuda:0 | tee "$results/verify.out"
    echo "remark: video cosine $(awk '$1 == "video_embeds" { print $4 }' "$results/verify.out"), logits within \
$(awk '$1 == "logits_per_video" { print $2 }' "$results/verify.out")"
}

generated() {
    [ -e "$results/$1/model.safetensors" ] || "$here/bin/xclipd" generate-weights "$1" "$results/$1"
    verify "$results/$1" "$here/root/tests/golden/$1/golden.safetensors"
}

# sanitize TOOL PROGRAM FILTER...
sanitize() {
    local tool=$1 program=$2
    shift 2
    command -v compute-sanitizer >/dev/null || {
        echo "remark: compute-sanitizer is not installed"
        return 77
    }
    compute-sanitizer --tool "$tool" --error-exitcode 9 "$here/bin/$program" --test-threads 1 "$@"
}

# bench WINDOWS MODEL-ARGUMENTS...
bench() {
    "$here/bin/xclipd" bench "${@:2}" --device cuda:0 --windows "$1" --rounds "$rounds" | tee "$results/bench.out"
    [ "$emulated" = no ] || {
        echo "remark: emulated: these times say nothing about any GPU"
        return 0
    }
    echo "remark: $(awk -F'  +' '/all frames new/ { print $2 " ms, " $6 " of the product peak" }' "$results/bench.out")"
}

peers() {
    python3 -c 'import torch, transformers; assert torch.cuda.is_available()' 2>/dev/null || {
        echo "remark: python3 has no torch with a GPU, or no transformers"
        return 77
    }
    python3 "$here/root/benches/peers/gpu.py" --xclipd "$here/bin/xclipd" --work "$results"
    echo "remark: table in peers.log"
}

# For the shell that a time limit is put on.
export -f doctor tests verify generated sanitize bench peers
export here results emulated=no rounds=60

run() {
    here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
    [ -x "$here/bin/xclipd" ] || fail "$here has no bin/xclipd; make the folder with scripts/gpu-check.sh --build"
    results=$here/results
    mkdir -p "$results"
    export XCLIP_TEST_ROOT=$here/root XCLIP_TEST_XCLIPD=$here/bin/xclipd XCLIP_EMULATOR=$here/emulator
    # cuBLASLt of a Python package is found by the package's folder.
    local site
    if [ -z "${XCLIP_CUDA_LIB_DIR:-}" ] &&
        site=$(python3 -c 'import sysconfig; print(sysconfig.get_path("purelib"))' 2>/dev/null) &&
        [ -d "$site/nvidia" ]; then
        export XCLIP_CUDA_LIB_DIR=$site
    fi
    check doctor doctor doctor
    if grep -q 'emulated device' "$results/doctor.log"; then
        emulated=yes rounds=1
        echo "REHEARSAL on the emulated device: no figures, no large batches"
    fi
    check "backend: golden vectors, refusals, sizes" backend tests cuda_backend
    check "backend: batches, graphs, labels" windows tests cuda_windows
    check "engine: streams, a lost device" engine tests cuda_engine
    check "pictures, from many threads" reduce tests cuda_reduce
    check "streams, from pictures to scores" detector tests cuda_detector
    check "kernels, one by one" kernels tests cuda_kernels
    check "faults (on the emulated device)" faults tests cuda_faults
    check "golden vectors, small" verify-small verify "$here/root/tests/golden/small" \
        "$here/root/tests/golden/small/golden.safetensors"
    check "golden vectors, base-patch32" verify-base generated base-patch32
    if [ "$quick" = no ]; then
        check "memcheck, kernels" memcheck-kernels sanitize memcheck cuda_kernels
        check "racecheck, kernels" racecheck-kernels sanitize racecheck cuda_kernels
        check "memcheck, backend" memcheck-backend sanitize memcheck cuda_backend small_holds two_backends
        check "memcheck, pictures" memcheck-reduce sanitize memcheck cuda_reduce
        check "racecheck, pictures" racecheck-reduce sanitize racecheck cuda_reduce
        check "racecheck, backend" racecheck-backend sanitize racecheck cuda_backend small_holds
    fi
    if [ "$emulated" = yes ]; then
        "$here/bin/xclipd" generate-weights "$here/root/tests/golden/small/config.json" "$results/small"
        check "bench small, 2 windows" bench-small bench 2 --model "$results/small"
    else
        check "bench base-patch32, 1 window" bench-b32-1 bench 1 --config base-patch32
    fi
    if [ "$quick" = no ] && [ "$emulated" = no ]; then
        check "bench base-patch32, 8 windows" bench-b32-8 bench 8 --config base-patch32
        check "bench base-patch32, 64 windows" bench-b32-64 bench 64 --config base-patch32
        check "bench base-patch16, 1 window" bench-b16-1 bench 1 --config base-patch16
        check "bench base-patch16, 64 windows" bench-b16-64 bench 64 --config base-patch16
    fi
    [ "$quick" = yes ] || check "PyTorch beside us" peers peers
    {
        echo "| check | result | s | |"
        echo "|---|---|---|---|"
        printf '%s\n' "${rows[@]}"
    } | tee "$results/table.md"
    exit "$failed"
}

quick=no
case "${1:-}" in
    --build) build "${2:-}" ;;
    --quick) quick=yes && run ;;
    "") run ;;
    *) fail "usage: scripts/gpu-check.sh --build [FOLDER], or FOLDER/gpu-check.sh [--quick]" ;;
esac
