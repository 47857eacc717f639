// x = x·sigmoid(1.702·x), in place.
//
// x [rows, width] f16; width a multiple of 8.
// Launch: one thread per 8 values, blocks so that threads ≥ rows·width/8.
// Reference: src/backend/cpu/activation.rs. Tolerance: half a unit of the last f16 place, and 2^-18 relative.
// Bound: memory; 16 bytes in and out a thread.
#include "common.cuh"

extern "C" __global__ void quick_gelu(half* x, int rows, int width) {
    int chunk = blockIdx.x * blockDim.x + threadIdx.x;
    if (chunk >= rows * (width / 8)) return;
    uint4* place = reinterpret_cast<uint4*>(x) + chunk;
    float values[8];
    unpack_8(values, *place);
#pragma unroll
    for (int i = 0; i < 8; i++) values[i] = quick_gelu_of(values[i]);
    *place = pack_8(values);
}
