// video[n] = mean over t of (hidden[n, t] + features[n, t]).
//
// hidden, features [N, T, E] f16; video [N, E] f32; E a multiple of 8.
// Launch: one thread per 8 values of video, blocks so that threads ≥ N·E/8.
// Reference: src/backend/cpu/mit.rs. Tolerance: 2^-20 relative to the largest summand.
// Bound: memory.
#include "common.cuh"

extern "C" __global__ void mit_pool(const half* hidden, const half* features, float* video, int clips,
                                    int frames, int width) {
    int per_row = width / 8, index = blockIdx.x * blockDim.x + threadIdx.x;
    if (index >= clips * per_row) return;
    int clip = index / per_row, chunk = index % per_row;
    float sum[8] = {0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f};
    for (int frame = 0; frame < frames; frame++) {
        size_t at = ((size_t)clip * frames + frame) * per_row + chunk;
        float a[8], b[8];
        unpack_8(a, reinterpret_cast<const uint4*>(hidden)[at]);
        unpack_8(b, reinterpret_cast<const uint4*>(features)[at]);
#pragma unroll
        for (int i = 0; i < 8; i++) sum[i] += a[i] + b[i];
    }
    float share = 1.0f / (float)frames;
    float4* to = reinterpret_cast<float4*>(video) + 2 * (size_t)index;
    to[0] = make_float4(sum[0] * share, sum[1] * share, sum[2] * share, sum[3] * share);
    to[1] = make_float4(sum[4] * share, sum[5] * share, sum[6] * share, sum[7] * share);
}
