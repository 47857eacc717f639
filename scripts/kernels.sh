#!/usr/bin/env bash
# Compiles kernels/*.cu into kernels/cubins, which the crate embeds: machine code for every chip since Ampere
# and PTX for later ones. NVRTC comes from the package registry into target/kernels (130 MB); no CUDA toolkit, no
# driver, no GPU. 12.9, because drivers from 525 on load what it makes.
source "$(dirname "$0")/steps.sh"

work=$(target_dir)/kernels
python=$work/venv/bin/python
wanted=(nvidia-cuda-nvrtc-cu12==12.9.86 nvidia-cuda-runtime-cu12==12.9.79 nvidia-cuda-nvcc-cu12==12.9.86)

if [ "$(cat "$work/packages" 2>/dev/null)" != "${wanted[*]}" ]; then
    mkdir -p "$work"
    python3 -m venv "$work/venv" ||
        fail "python3 cannot make virtual environments; on Debian: apt-get install python3-venv"
    "$python" -m pip install --quiet --no-deps "${wanted[@]}"
    echo "${wanted[*]}" >"$work/packages"
fi
packages=$("$python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
exec "$python" scripts/kernels.py kernels "$packages"
