"""Compiles kernels/*.cu with NVRTC into kernels/cubins; run by scripts/kernels.sh.

python scripts/kernels.py KERNELS_FOLDER SITE_PACKAGES

One program of all kernels per chip. Beside them `sources`: a hash of what they were made from, and how, which
tests/cuda_images.rs compares. It guards against forgetting, so FNV-1a will do.
"""

import ctypes
import re
import sys
from pathlib import Path

# Machine code for the chips there are; for those to come PTX, which their drivers compile.
TARGETS = [f"sm_{chip}" for chip in (80, 86, 89, 90, 100, 120)] + ["compute_80"]
OPTIONS = ["--std=c++17", "--device-as-default-execution-space"]


def source_hash(folder):
    """FNV-1a of the names and contents of kernels/*.cu and *.cuh, in the order of their names, and of the recipe: the
    lines of the two scripts that name compiler, targets and options."""
    parts = []
    for file in sorted([*folder.glob("*.cu"), *folder.glob("*.cuh")]):
        parts += [file.name.encode(), file.read_bytes()]
    for script in [Path(__file__), Path(__file__).with_suffix(".sh")]:
        lines = script.read_text().splitlines()
        parts += [line.encode() for line in lines if line.startswith(("TARGETS =", "OPTIONS =", "wanted=("))]
    value = 0xCBF29CE484222325
    for byte in b"".join(part + b"\0" for part in parts):
        value = (value ^ byte) * 0x100000001B3 % 2**64
    return f"{value:016x}"


class Nvrtc:
    def __init__(self, packages):
        nvidia = packages / "nvidia"
        self.includes = [nvidia / "cuda_runtime/include", nvidia / "cuda_nvcc/include"]
        self.library = ctypes.CDLL(str(nvidia / "cuda_nvrtc/lib/libnvrtc.so.12"))
        major, minor = ctypes.c_int(), ctypes.c_int()
        self.check(self.library.nvrtcVersion(ctypes.byref(major), ctypes.byref(minor)))
        self.version = f"{major.value}.{minor.value}"

    def check(self, status):
        if status != 0:
            self.library.nvrtcGetErrorString.restype = ctypes.c_char_p
            sys.exit(f"error: NVRTC: {self.library.nvrtcGetErrorString(status).decode()}")

    def bytes_of(self, program, what):
        size = ctypes.c_size_t()
        self.check(getattr(self.library, f"nvrtcGet{what}Size")(program, ctypes.byref(size)))
        text = ctypes.create_string_buffer(size.value)
        self.check(getattr(self.library, f"nvrtcGet{what}")(program, text))
        return text.raw

    def compile(self, source, target, folder):
        program = ctypes.c_void_p()
        self.check(self.library.nvrtcCreateProgram(
            ctypes.byref(program), source.encode(), b"kernels.cu", 0, None, None))
        options = [f"--gpu-architecture={target}", *OPTIONS]
        options += [f"--include-path={path}" for path in [folder, *self.includes]]
        given = (ctypes.c_char_p * len(options))(*[option.encode() for option in options])
        status = self.library.nvrtcCompileProgram(program, len(options), given)
        log = self.bytes_of(program, "ProgramLog").rstrip(b"\0\n").decode()
        if log:
            print(log, file=sys.stderr)
        if status != 0:
            sys.exit(f"error: {target}: the kernels do not compile")
        # PTX is a C string.
        code = self.bytes_of(program, "CUBIN") if target.startswith("sm_") else self.bytes_of(program, "PTX")[:-1]
        self.check(self.library.nvrtcDestroyProgram(ctypes.byref(program)))
        return code


def main(folder, packages):
    nvrtc = Nvrtc(packages)
    files = sorted(folder.glob("*.cu"))
    source = "".join(f'#include "{file.name}"\n' for file in files)
    declaration = r'extern "C" __global__ void\s+(?:__launch_bounds__\([^)]*\)\s+)?(\w+)\s*\('
    names = [name for file in files for name in re.findall(declaration, file.read_text())]
    out = folder / "cubins"
    out.mkdir(exist_ok=True)
    (out / "sources").unlink(missing_ok=True)
    for target in TARGETS:
        code = nvrtc.compile(source, target, folder)
        missing = [name for name in names if name.encode() not in code]
        if missing:
            sys.exit(f"error: {target}: compiled without {', '.join(missing)}")
        file = out / (f"{target}.cubin" if target.startswith("sm_") else f"{target}.ptx")
        file.write_bytes(code)
        print(f"{file.name}: {len(names)} kernels, {len(code) / 1024:.0f} KiB")
    (out / "sources").write_text(source_hash(folder) + "\n")
    print(f"made with NVRTC {nvrtc.version}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
