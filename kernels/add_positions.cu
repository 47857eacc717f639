// out[n, t] = features[n, t] + positions[t]: the MIT's input.
//
// features, out [N, T, E] f16 (may be the same), positions [T, E] f32; E a multiple of 8.
// Launch: one thread per 8 values, blocks so that threads ≥ N·T·E/8.
// Reference: src/backend/cpu/mit.rs. Tolerance: half a unit of the last f16 place.
// Bound: memory.
#include "common.cuh"

extern "C" __global__ void add_positions(const half* features, const float* positions, half* out, int clips,
                                         int frames, int width) {
    int chunk = blockIdx.x * blockDim.x + threadIdx.x, per_clip = frames * width / 8;
    if (chunk >= clips * per_clip) return;
    float values[8], summand[8];
    unpack_8(values, reinterpret_cast<const uint4*>(features)[chunk]);
    load_8(summand, positions + chunk % per_clip * 8);
#pragma unroll
    for (int i = 0; i < 8; i++) values[i] += summand[i];
    reinterpret_cast<uint4*>(out)[chunk] = pack_8(values);
}
