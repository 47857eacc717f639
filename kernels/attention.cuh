// softmax(q·kᵀ)·v of one head of one item: the inner loop of attention.cu and prompt_attention.cu.
//
// A block has W warps of 16 queries each and walks over tiles of 64 keys that all its warps share. Both
// products run on tensor cores (mma m16n8k16); the softmax is the online one: a running maximum and sum
// per query, and a result that is scaled down when the maximum rises. Scores never leave the registers:
// where the first product leaves a score is where the second wants its weight.
//
// Shared memory: two stages of a key tile and a value tile, [64, HEAD] f16 each, so that a tile arrives
// while the one before is worked on. The queries pass through the second stage before the first tile is
// done, the results through the stage that is free at the end. Chunks of 16 bytes are stored at
// `chunk XOR pattern(row)`, which spreads any 8 rows of one column over all 32 banks.
//
// HEAD is the head's size rounded up to a multiple of 16; the surplus is zero in shared memory only.
#pragma once
#include "common.cuh"

#define KEY_TILE 64
#define LOG2_E 1.4426950408889634f

// What one block reads and writes: pointers are at the item's first row and the head's first value, strides
// in values. All are 16-byte aligned, rows too.
struct AttentionHead {
    const half *query, *key, *value;
    // One more key after the others; null for none.
    const half *extra_key, *extra_value;
    half* out;
    int query_stride, key_stride, out_stride;
    int queries, keys;
    // Values of a head, a multiple of 8, at most HEAD.
    int width;
    // Query i sees keys 0..=i only.
    bool causal;
};

// Index, in 16-byte units, of a chunk of a row of a [rows, HEAD] tile.
template <int HEAD>
__device__ __forceinline__ int tile_chunk(int row, int chunk) {
    const int chunks = HEAD / 8;
    int pattern = chunks % 8 == 0 ? row & 7 : chunks % 4 == 0 ? (row >> 1) & 3 : (row >> 2) & 1;
    return row * chunks + (chunk ^ pattern);
}

// Starts the copies of `rows` rows from row `first` on into a tile; those from `end` on become zeros. Row
// `extra_at` is read at `extra`.
template <int HEAD>
__device__ __forceinline__ void load_tile(uint4* tile, const half* from, int stride, int first, int rows,
                                          int end, const half* extra, int extra_at, int width) {
    const int chunks = HEAD / 8;
    for (int i = threadIdx.x; i < rows * chunks; i += blockDim.x) {
        int row = i / chunks, chunk = i % chunks;
        bool valid = first + row < end && 8 * chunk < width;
        const half* source = first + row == extra_at ? extra : from + (size_t)(first + row) * stride;
        copy_async_16(&tile[tile_chunk<HEAD>(row, chunk)], valid ? source + 8 * chunk : from, valid);
    }
}

template <int HEAD>
__device__ __forceinline__ void attend(const AttentionHead& a) {
    const int STEPS = HEAD / 16;           // of the first product, 16 values of a head each
    const int COLUMNS = HEAD / 8;          // of the result, 8 values each
    const int GROUPS = KEY_TILE / 16;      // of keys
    const int TILE = KEY_TILE * HEAD / 8;  // in 16-byte units
    DYNAMIC_SHARED(shared);

    const int warps = blockDim.x / WARP, warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    const int first_query = blockIdx.x * warps * 16;
    if (first_query >= a.queries) return;
    const int all_keys = a.keys + (a.extra_key != nullptr);
    const int keys = a.causal ? min(all_keys, first_query + warps * 16) : all_keys;
    const int extra_at = a.extra_key != nullptr ? a.keys : -1;
    const int tiles = (keys + KEY_TILE - 1) / KEY_TILE;

    auto load_keys = [&](int tile) {
        uint4* stage = shared + tile % 2 * 2 * TILE;
        int first = tile * KEY_TILE;
        int rows = min(KEY_TILE, (keys - first + 15) / 16 * 16);
        load_tile<HEAD>(stage, a.key, a.key_stride, first, rows, keys, a.extra_key, extra_at, a.width);
        load_tile<HEAD>(stage + TILE, a.value, a.key_stride, first, rows, keys, a.extra_value, extra_at,
                        a.width);
        copy_async_commit();
    };
    load_tile<HEAD>(shared + 2 * TILE, a.query, a.query_stride, first_query, warps * 16, a.queries, a.query,
                    -1, a.width);
    load_keys(0);
    copy_async_wait<0>();
    __syncthreads();

    uint32 query[STEPS][4];
#pragma unroll
    for (int step = 0; step < STEPS; step++) {
        int chunk = tile_chunk<HEAD>(warp * 16 + lane % 16, 2 * step + lane / 16);
        ldmatrix_x4(query[step], &shared[2 * TILE + chunk]);
    }
    if (tiles > 1) __syncthreads();

    float result[COLUMNS][4];
#pragma unroll
    for (int column = 0; column < COLUMNS; column++) {
        for (int i = 0; i < 4; i++) result[column][i] = 0.0f;
    }
    // Of rows lane/4 and lane/4 + 8 of the warp's queries; the sum is this lane's share.
    float maximum[2] = {MINUS_INFINITY, MINUS_INFINITY}, sum[2] = {0.0f, 0.0f};

    for (int tile = 0; tile < tiles; tile++) {
        if (tile > 0) {
            copy_async_wait<0>();
            __syncthreads();
        }
        if (tile + 1 < tiles) load_keys(tile + 1);
        const uint4* key_tile = shared + tile % 2 * 2 * TILE;
        const uint4* value_tile = key_tile + TILE;
        const int first_key = tile * KEY_TILE;
        const int groups = min(GROUPS, (keys - first_key + 15) / 16);

        float scores[2 * GROUPS][4];
#pragma unroll
        for (int group = 0; group < GROUPS; group++) {
            for (int i = 0; i < 4; i++) scores[2 * group][i] = scores[2 * group + 1][i] = 0.0f;
            if (group >= groups) continue;
#pragma unroll
            for (int step = 0; step < STEPS; step++) {
                uint32 key[4];
                int row = group * 16 + lane / 16 * 8 + lane % 8;
                ldmatrix_x4(key, &key_tile[tile_chunk<HEAD>(row, 2 * step + lane / 8 % 2)]);
                mma_16816(scores[2 * group], query[step], key);
                mma_16816(scores[2 * group + 1], query[step], key + 2);
            }
        }
        if (first_key + KEY_TILE > all_keys || (a.causal && first_key + KEY_TILE > first_query)) {
            const int own_query = first_query + warp * 16 + lane / 4;
#pragma unroll
            for (int column = 0; column < 2 * GROUPS; column++) {
                for (int i = 0; i < 4; i++) {
                    int key = first_key + column * 8 + lane % 4 * 2 + i % 2;
                    bool seen = key < all_keys && (!a.causal || key <= own_query + i / 2 * 8);
                    if (!seen) scores[column][i] = MINUS_INFINITY;
                }
            }
        }
        float scale[2], offset[2];
#pragma unroll
        for (int half_tile = 0; half_tile < 2; half_tile++) {
            float most = maximum[half_tile];
#pragma unroll
            for (int column = 0; column < 2 * GROUPS; column++) {
                most = fmaxf(most, fmaxf(scores[column][2 * half_tile], scores[column][2 * half_tile + 1]));
            }
            most = fmaxf(most, __shfl_xor_sync(EVERY_LANE, most, 1));
            most = fmaxf(most, __shfl_xor_sync(EVERY_LANE, most, 2));
            // Every query sees key 0, so from the first tile on the maximum is a number.
            scale[half_tile] = exp2_approx((maximum[half_tile] - most) * LOG2_E);
            offset[half_tile] = -most * LOG2_E;
            maximum[half_tile] = most;
            sum[half_tile] *= scale[half_tile];
        }
#pragma unroll
        for (int column = 0; column < COLUMNS; column++) {
            for (int i = 0; i < 4; i++) result[column][i] *= scale[i / 2];
        }
#pragma unroll
        for (int group = 0; group < GROUPS; group++) {
            if (group >= groups) continue;
            uint32 weights[4];
#pragma unroll
            for (int part = 0; part < 4; part++) {
                const float* pair = &scores[2 * group + part / 2][part % 2 * 2];
                float low = exp2_approx(fmaf(pair[0], LOG2_E, offset[part % 2]));
                float high = exp2_approx(fmaf(pair[1], LOG2_E, offset[part % 2]));
                sum[part % 2] += low + high;
                weights[part] = pack_halves(low, high);
            }
#pragma unroll
            for (int column = 0; column < COLUMNS; column += 2) {
                uint32 value[4];
                int row = group * 16 + lane % 16;
                ldmatrix_x4_trans(value, &value_tile[tile_chunk<HEAD>(row, column + lane / 16)]);
                mma_16816(result[column], weights, value);
                mma_16816(result[column + 1], weights, value + 2);
            }
        }
    }

    // Through shared memory, so that rows leave 16 bytes at a time. All warps are done with this stage (with
    // a single tile it holds the queries, and each warp has read its own), and each uses its own 16 rows.
    uint4* stage = shared + tiles % 2 * 2 * TILE;
    uint32* words = reinterpret_cast<uint32*>(stage);
    __syncwarp();
#pragma unroll
    for (int half_tile = 0; half_tile < 2; half_tile++) {
        float total = sum[half_tile];
        total += __shfl_xor_sync(EVERY_LANE, total, 1);
        total += __shfl_xor_sync(EVERY_LANE, total, 2);
        float factor = 1.0f / total;
        int row = warp * 16 + lane / 4 + half_tile * 8;
#pragma unroll
        for (int column = 0; column < COLUMNS; column++) {
            words[tile_chunk<HEAD>(row, column) * 4 + lane % 4] = pack_halves(
                result[column][2 * half_tile] * factor, result[column][2 * half_tile + 1] * factor);
        }
    }
    __syncwarp();
    for (int i = lane; i < 16 * COLUMNS; i += WARP) {
        int row = i / COLUMNS, chunk = i % COLUMNS, query_row = first_query + warp * 16 + row;
        if (query_row < a.queries && 8 * chunk < a.width) {
            *reinterpret_cast<uint4*>(a.out + (size_t)query_row * a.out_stride + 8 * chunk) =
                stage[tile_chunk<HEAD>(warp * 16 + row, chunk)];
        }
    }
}
