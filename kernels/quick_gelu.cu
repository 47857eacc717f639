// x = (x + bias)·sigmoid(1.702·(x + bias)), in place.
//
// x [rows, width] f16, bias [width] f32 or null for none; width a multiple of 8.
// Launch: one thread per 8 values, blocks so that threads ≥ rows·width/8.
// Reference: src/backend/cpu/activation.rs. Tolerance: half a unit of the last f16 place, and 2^-18 relative.
// Bound: memory; 16 bytes in and out a thread.
#include "common.cuh"

extern "C" __global__ void quick_gelu(half* x, const float* bias, int rows, int width) {
    int per_row = width / 8;
    int chunk = blockIdx.x * blockDim.x + threadIdx.x;
    if (chunk >= rows * per_row) return;
    uint4* place = reinterpret_cast<uint4*>(x) + chunk;
    float values[8], summand[8];
    unpack_8(values, *place);
    if (bias != nullptr) {
        load_8(summand, bias + chunk % per_row * 8);
#pragma unroll
        for (int i = 0; i < 8; i++) values[i] += summand[i];
    }
#pragma unroll
    for (int i = 0; i < 8; i++) values[i] = quick_gelu_of(values[i]);
    *place = pack_8(values);
}
