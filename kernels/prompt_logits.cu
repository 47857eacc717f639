// logits[n, k] = scale·⟨v/|v|, t/|t|⟩ with v = video[n], t = table[index[n, k]] + alpha·prompted[n, k].
//
// table [any, E] f32, index [N, K] (−1: unused, logit 0), prompted [N, K, E] f16, alpha [E] f32, video [N, E]
// f32 (not normalised), logits [N, K] f32; E a multiple of 8. scale = exp(logit_scale).
// Launch: one warp per logit, blocks so that warps ≥ N·K.
// Reference: src/backend/cpu/mod.rs (compare). Tolerance: scale·2^-18.
// Bound: memory.
#include "common.cuh"

extern "C" __global__ void prompt_logits(const float* table, const int* index, const half* prompted,
                                         const float* alpha, const float* video, float scale, float* logits,
                                         int clips, int prompts, int width) {
    int at = blockIdx.x * (blockDim.x / WARP) + threadIdx.x / WARP, lane = threadIdx.x % WARP;
    if (at >= clips * prompts) return;
    int label = index[at];
    if (label < 0) {
        if (lane == 0) logits[at] = 0.0f;
        return;
    }
    const float* text = table + (size_t)label * width;
    const float* clip = video + (size_t)(at / prompts) * width;
    const uint4* moved = reinterpret_cast<const uint4*>(prompted + (size_t)at * width);
    float product = 0.0f, text_square = 0.0f, clip_square = 0.0f;
    for (int chunk = lane; chunk < width / 8; chunk += WARP) {
        float t[8], a[8], p[8], v[8];
        load_8(t, text + 8 * chunk);
        load_8(a, alpha + 8 * chunk);
        load_8(v, clip + 8 * chunk);
        unpack_8(p, moved[chunk]);
#pragma unroll
        for (int i = 0; i < 8; i++) {
            float value = fmaf(a[i], p[i], t[i]);
            product = fmaf(value, v[i], product);
            text_square = fmaf(value, value, text_square);
            clip_square = fmaf(v[i], v[i], clip_square);
        }
    }
    product = warp_sum(product);
    text_square = warp_sum(text_square);
    clip_square = warp_sum(clip_square);
    if (lane == 0) logits[at] = scale * product / (sqrtf(text_square) * sqrtf(clip_square));
}
