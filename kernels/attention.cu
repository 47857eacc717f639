// out = softmax(q·kᵀ)·v per item and head, over the item's own rows and, where given, its message's key.
//
// qkv [rows, 3·heads·head] f16, queries already times head^-0.5; out [rows, heads·head] f16. Items are
// `length` rows each, or rows starts[i]..starts[i+1] (no longer than `length`, at least one). message_kv: a
// key, then a value, heads·head values each, `message_stride` values from item to item (0: the same for all);
// null for none. causal: query i sees keys 0..=i (not with a message). Serves frames, messages across frames,
// MIT and text. head: a multiple of 8, at most 96.
// Launch: attention_N with N = head rounded up to 16 (at least 32); grid (query tiles, heads, items), W·32
// threads, query tiles·W·16 ≥ length, W ≤ 8 (ceil(length/16) warps dealt evenly to the fewest tiles); 512·N
// bytes of dynamic shared memory.
// Reference: src/backend/cpu/attention.rs. Tolerance: 2^-10 of the largest |v| (weights are rounded to f16).
// Bound: tensor cores from L ≈ 200 on, below that the latency of one pass over memory.
#include "common.cuh"
#include "attention.cuh"

template <int HEAD>
__device__ __forceinline__ void attend_item(const half* qkv, const half* message_kv, half* out,
                                            const int* starts, int length, int heads, int head, int causal,
                                            int message_stride) {
    const int item = blockIdx.z, at = blockIdx.y * head, width = heads * head;
    const int first = starts != nullptr ? starts[item] : item * length;
    const int rows = starts != nullptr ? starts[item + 1] - first : length;
    const half* own = qkv + (size_t)first * 3 * width + at;
    const half* message = message_kv != nullptr ? message_kv + (size_t)item * message_stride + at : nullptr;
    AttentionHead task;
    task.query = own;
    task.key = own + width;
    task.value = own + 2 * width;
    task.extra_key = message;
    task.extra_value = message != nullptr ? message + width : nullptr;
    task.out = out + (size_t)first * width + at;
    task.query_stride = 3 * width;
    task.key_stride = 3 * width;
    task.out_stride = width;
    task.queries = rows;
    task.keys = rows;
    task.width = head;
    task.causal = causal != 0;
    attend<HEAD>(task);
}

extern "C" __global__ void __launch_bounds__(256)
    attention_32(const half* qkv, const half* message_kv, half* out, const int* starts, int items, int length,
                 int heads, int head, int causal, int message_stride) {
    if ((int)blockIdx.z >= items) return;
    attend_item<32>(qkv, message_kv, out, starts, length, heads, head, causal, message_stride);
}

extern "C" __global__ void __launch_bounds__(256)
    attention_48(const half* qkv, const half* message_kv, half* out, const int* starts, int items, int length,
                 int heads, int head, int causal, int message_stride) {
    if ((int)blockIdx.z >= items) return;
    attend_item<48>(qkv, message_kv, out, starts, length, heads, head, causal, message_stride);
}

extern "C" __global__ void __launch_bounds__(256)
    attention_64(const half* qkv, const half* message_kv, half* out, const int* starts, int items, int length,
                 int heads, int head, int causal, int message_stride) {
    if ((int)blockIdx.z >= items) return;
    attend_item<64>(qkv, message_kv, out, starts, length, heads, head, causal, message_stride);
}

extern "C" __global__ void __launch_bounds__(256)
    attention_80(const half* qkv, const half* message_kv, half* out, const int* starts, int items, int length,
                 int heads, int head, int causal, int message_stride) {
    if ((int)blockIdx.z >= items) return;
    attend_item<80>(qkv, message_kv, out, starts, length, heads, head, causal, message_stride);
}

extern "C" __global__ void __launch_bounds__(256)
    attention_96(const half* qkv, const half* message_kv, half* out, const int* starts, int items, int length,
                 int heads, int head, int causal, int message_stride) {
    if ((int)blockIdx.z >= items) return;
    attend_item<96>(qkv, message_kv, out, starts, length, heads, head, causal, message_stride);
}
