// out = softmax(q·kᵀ)·v per clip and head: labels look at the clip's patches, never at each other.
//
// q [N, K, E] f16, already times head^-0.5; kv [N, P, 2E] f16, keys then values; out [N, K, E] f16; E =
// heads·head, K = prompts, P = patches. head: a multiple of 8, at most 96.
// Launch: prompt_attention_N with N = head rounded up to 16 (at least 32); grid (query tiles, heads, clips),
// W·32 threads, query tiles·W·16 ≥ prompts, W ≤ 8; 512·N bytes of dynamic shared memory.
// Reference: src/backend/cpu/prompts.rs. Tolerance: 2^-10 of the largest |v|.
// Bound: memory; each block reads the clip's keys and values of one head once.
#include "common.cuh"
#include "attention.cuh"

template <int HEAD>
__device__ __forceinline__ void attend_clip(const half* q, const half* kv, half* out, int prompts,
                                            int patches, int heads, int head) {
    const int clip = blockIdx.z, at = blockIdx.y * head, width = heads * head;
    AttentionHead task;
    task.query = q + (size_t)clip * prompts * width + at;
    task.key = kv + (size_t)clip * patches * 2 * width + at;
    task.value = task.key + width;
    task.extra_key = nullptr;
    task.extra_value = nullptr;
    task.out = out + (size_t)clip * prompts * width + at;
    task.query_stride = width;
    task.key_stride = 2 * width;
    task.out_stride = width;
    task.queries = prompts;
    task.keys = patches;
    task.width = head;
    task.causal = false;
    attend<HEAD>(task);
}

extern "C" __global__ void __launch_bounds__(256)
    prompt_attention_32(const half* q, const half* kv, half* out, int clips, int prompts, int patches,
                        int heads, int head) {
    if ((int)blockIdx.z >= clips) return;
    attend_clip<32>(q, kv, out, prompts, patches, heads, head);
}

extern "C" __global__ void __launch_bounds__(256)
    prompt_attention_48(const half* q, const half* kv, half* out, int clips, int prompts, int patches,
                        int heads, int head) {
    if ((int)blockIdx.z >= clips) return;
    attend_clip<48>(q, kv, out, prompts, patches, heads, head);
}

extern "C" __global__ void __launch_bounds__(256)
    prompt_attention_64(const half* q, const half* kv, half* out, int clips, int prompts, int patches,
                        int heads, int head) {
    if ((int)blockIdx.z >= clips) return;
    attend_clip<64>(q, kv, out, prompts, patches, heads, head);
}

extern "C" __global__ void __launch_bounds__(256)
    prompt_attention_80(const half* q, const half* kv, half* out, int clips, int prompts, int patches,
                        int heads, int head) {
    if ((int)blockIdx.z >= clips) return;
    attend_clip<80>(q, kv, out, prompts, patches, heads, head);
}

extern "C" __global__ void __launch_bounds__(256)
    prompt_attention_96(const half* q, const half* kv, half* out, int clips, int prompts, int patches,
                        int heads, int head) {
    if ((int)blockIdx.z >= clips) return;
    attend_clip<96>(q, kv, out, prompts, patches, heads, head);
}
