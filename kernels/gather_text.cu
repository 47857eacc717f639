// out[r] = table[index[r]] in f16, zeros where index[r] is −1: each clip's label vectors from one device
// table.
//
// table [any, E] f32; index [rows = N·K]; out [rows, E] f16; E a multiple of 8.
// Launch: one thread per 8 values, blocks so that threads ≥ rows·E/8.
// Reference: none (a copy). Tolerance: half a unit of the last f16 place.
// Bound: memory.
#include "common.cuh"

extern "C" __global__ void gather_text(const float* table, const int* index, half* out, int rows, int width) {
    int per_row = width / 8, at = blockIdx.x * blockDim.x + threadIdx.x;
    if (at >= rows * per_row) return;
    int label = index[at / per_row];
    float values[8] = {0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f};
    if (label >= 0) load_8(values, table + (size_t)label * width + at % per_row * 8);
    reinterpret_cast<uint4*>(out)[at] = pack_8(values);
}
