// out[n, p] = mean over t of LayerNorm(x[n, t, 1 + p]): the patch rows of a clip, averaged over its frames.
//
// x [N, T, L, D] f16 (row 0 of a frame is its class row, left out); gain, bias [D] f32; out [N, L−1, D] f16;
// D a multiple of 8, at most 1280.
// Launch: one block per row of out (N·(L−1) blocks) of W·32 threads, W = min(T, 8), so that a single clip's
// frames are read side by side; 4·W·D bytes of dynamic shared memory.
// Reference: src/backend/cpu/mod.rs (encode_window). Tolerance: half a unit of the last f16 place, and 2^-20.
// Bound: memory; every patch row is read once.
#include "common.cuh"
#include "row.cuh"

extern "C" __global__ void __launch_bounds__(256)
    patch_mean(const half* x, const float* gain, const float* bias, half* out, int clips, int frames,
               int tokens, int width, float eps) {
    DYNAMIC_SHARED(partial);
    float* sums = reinterpret_cast<float*>(partial);
    int patches = tokens - 1, chunks = width / 8, warps = blockDim.x / WARP, warp = threadIdx.x / WARP;
    int clip = blockIdx.x / patches, patch = blockIdx.x % patches;
    if (clip >= clips) return;
    Row sum;
#pragma unroll
    for (int i = 0; i < ROW_CHUNKS; i++) {
        for (int j = 0; j < 8; j++) sum.values[i][j] = 0.0f;
    }
    for (int frame = warp; frame < frames; frame += warps) {
        Row values;
        read_row(values, x + (((size_t)clip * frames + frame) * tokens + 1 + patch) * width, chunks);
        normalise_row(values, chunks, gain, bias, eps);
#pragma unroll
        for (int i = 0; i < ROW_CHUNKS; i++) {
            for (int j = 0; j < 8; j++) sum.values[i][j] += values.values[i][j];
        }
    }
#pragma unroll
    for (int i = 0; i < ROW_CHUNKS; i++) {
        int chunk = threadIdx.x % WARP + i * WARP;
        if (chunk < chunks) {
            float4* to = reinterpret_cast<float4*>(sums + warp * width + 8 * chunk);
            const float* from = sum.values[i];
            to[0] = make_float4(from[0], from[1], from[2], from[3]);
            to[1] = make_float4(from[4], from[5], from[6], from[7]);
        }
    }
    __syncthreads();
    float share = 1.0f / (float)frames;
    for (int chunk = threadIdx.x; chunk < chunks; chunk += blockDim.x) {
        float total[8] = {0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f};
        for (int other = 0; other < warps; other++) {
            float part[8];
            load_8(part, sums + other * width + 8 * chunk);
#pragma unroll
            for (int j = 0; j < 8; j++) total[j] += part[j];
        }
#pragma unroll
        for (int j = 0; j < 8; j++) total[j] *= share;
        reinterpret_cast<uint4*>(out + (size_t)blockIdx.x * width)[chunk] = pack_8(total);
    }
}
