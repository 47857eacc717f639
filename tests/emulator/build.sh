#!/usr/bin/env bash
# tests/emulator/build.sh FOLDER: the emulated device as FOLDER/libcuda.so.1 and FOLDER/libcublasLt.so.12, out of
# kernels/*.cu and the sources here. Does nothing where they are newer than all of it. Needs g++.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
kernels=$here/../../kernels
mkdir -p "$1"
folder=$(cd "$1" && pwd)
exec 9>"$folder/.lock"
flock 9

key=$(cat "$here"/*.cpp "$here"/*.hpp "$here"/build.sh "$kernels"/*.cu "$kernels"/*.cuh | sha256sum)
if [ -e "$folder/libcublasLt.so.12" ] && [ "$(cat "$folder/built-from" 2>/dev/null)" = "$key" ]; then
    exit 0
fi
compiler=${CXX:-g++}
command -v "$compiler" >/dev/null || {
    echo "error: $compiler is missing; the emulated device is built by a C++17 compiler (apt-get install g++)" >&2
    exit 1
}

work=$(mktemp -d "$folder/build.XXXXXX")
trap 'rm -rf "$work"' EXIT
{
    for file in "$kernels"/*.cu; do echo "#include \"$(basename "$file")\""; done
    echo "#define KERNELS(X) \\"
    # extern "C" __global__ void [__launch_bounds__(threads, …)] NAME(
    cat "$kernels"/*.cu | tr '\n' ' ' |
        grep -oE 'extern "C" __global__ void( __launch_bounds__\([0-9, ]+\))? +[a-z0-9_]+ *\(' |
        sed -E 's/.*void( __launch_bounds__\(([0-9]+)[0-9, ]*\))? +([a-z0-9_]+) *\($/    X(\3, \2) \\/; s/, \)/, 1024)/'
    echo
} >"$work/kernels.inc"

flags=(-std=c++17 -O2 -g1 -fPIC -fvisibility=hidden -U_FORTIFY_SOURCE -Wall -Wextra -Wno-unknown-pragmas
    -Wno-maybe-uninitialized
    -DXCLIP_EMULATED -I"$here" -I"$kernels" -I"$work")
# A misaligned access is an error on the device: a trap says so.
strict=(-fsanitize=alignment -fsanitize-undefined-trap-on-error)
compile() { "$compiler" "${flags[@]}" "$@"; }
for unit in kernels collectives block memory work images names driver; do
    extra=()
    if [ "$unit" = kernels ]; then extra=("${strict[@]}"); fi
    compile "${extra[@]}" -c "$here/$unit.cpp" -o "$work/$unit.o"
done
compile -shared -Wl,-soname,libcuda.so.1 "$work"/*.o -o "$work/libcuda.so.1" -pthread
compile -shared -Wl,-soname,libcublasLt.so.12 -Wl,-rpath,'$ORIGIN' "$here/cublaslt.cpp" "$work/libcuda.so.1" \
    -o "$work/libcublasLt.so.12"
rm -f "$folder/built-from"
mv -f "$work/libcuda.so.1" "$work/libcublasLt.so.12" "$folder"
echo "$key" >"$folder/built-from"
