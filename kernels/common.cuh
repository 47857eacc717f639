// What all kernels share: types, warp collectives, and the few instructions CUDA C++ has no name for.
//
// The only file with inline PTX and the only one that knows what compiles it: NVRTC for a GPU, or a C++
// compiler for the emulated device (XCLIP_EMULATED, tests/emulator/emulated.hpp), which runs the same
// kernels on a processor so that they are tested where no GPU is.
//
// emulated.hpp provides, in the global namespace:
//   __global__ __device__ __forceinline__ __restrict__ __launch_bounds__(n[, n]);
//   threadIdx, blockIdx, blockDim, gridDim; __shared__ for arrays of constant size; DYNAMIC_SHARED (below);
//   __syncthreads(); __syncwarp(); __shfl_xor_sync(mask, float, lanes); __shfl_sync(mask, float, lane);
//   half (2 bytes); __half2float(half); __float2half(float), to nearest even;
//   uint2, uint4, float2, float4 with their make_ functions, __float_as_uint, __uint_as_float;
//   fmaf, fmaxf, fminf, sqrtf, exp2f, min, max;
//   every function below marked "emulated", with exactly this signature and meaning.
// mma, ldmatrix, shuffles and barriers are collective: all 32 lanes (all threads) arrive at the same call.
// Every kernel is written out as `extern "C" __global__ void [__launch_bounds__(n[, n])] NAME(arguments)`
// (white space may be a new line), so that scripts can list names and arguments.
#pragma once

#ifdef XCLIP_EMULATED
#include "emulated.hpp"
#else
#include <cuda_fp16.h>
#endif

typedef unsigned char uint8;
typedef unsigned int uint32;

#define WARP 32
#define EVERY_LANE 0xffffffffu
#define MINUS_INFINITY __uint_as_float(0xff800000u)

#ifndef XCLIP_EMULATED

// The launch's dynamic shared memory, 16-byte aligned. Emulated: a local `uint4* name`.
#define DYNAMIC_SHARED(name) extern __shared__ uint4 name[]

// d[16,8] += a[16,16]·b[16,8] on tensor cores; a row-major, b column-major, f16 with f32 sums. Lane l, with
// g = l/4 and t = l%4, holds pairs of neighbouring elements, the lower one in the low half:
//   a[0] (g, 2t..)  a[1] (g+8, 2t..)  a[2] (g, 2t+8..)  a[3] (g+8, 2t+8..)
//   b[0] (2t.., g)  b[1] (2t+8.., g)
//   d[0], d[1] (g, 2t..)  d[2], d[3] (g+8, 2t..)
// Emulated.
__device__ __forceinline__ void mma_16816(float d[4], const uint32 a[4], const uint32 b[2]) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// Four 8×8 matrices of f16 from shared memory. Lane l names row l%8 of matrix l/8 (16 bytes, 16-byte
// aligned) and receives r[i] = elements (l/4, 2·(l%4)..) of matrix i. Emulated.
__device__ __forceinline__ void ldmatrix_x4(uint32 r[4], const void* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"((uint32)__cvta_generic_to_shared(row))
                 : "memory");
}

// The same, each matrix transposed: r[i] = elements (2·(l%4), l/4) and (2·(l%4)+1, l/4). Emulated.
__device__ __forceinline__ void ldmatrix_x4_trans(uint32 r[4], const void* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"((uint32)__cvta_generic_to_shared(row))
                 : "memory");
}

// 16 bytes from global to shared memory, both 16-byte aligned, without passing through registers; zeros
// instead where not `valid` (then `global` is not read, but still a pointer). Per thread. The bytes may be
// read after copy_async_wait and a barrier. Emulated.
__device__ __forceinline__ void copy_async_16(void* shared, const void* global, bool valid) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;"
                 :
                 : "r"((uint32)__cvta_generic_to_shared(shared)), "l"(global), "r"(valid ? 16 : 0)
                 : "memory");
}

// Closes the group of copies this thread has started since the last one. Emulated.
__device__ __forceinline__ void copy_async_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }

// Waits until at most LATEST of this thread's groups are still on their way. Emulated.
template <int LATEST>
__device__ __forceinline__ void copy_async_wait() {
    asm volatile("cp.async.wait_group %0;" ::"n"(LATEST) : "memory");
}

// 2^x; relative error below 2^-22; 0 for -infinity. Emulated.
__device__ __forceinline__ float exp2_approx(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

// 1/x within 1 unit of the last place; 0 for infinity. Emulated.
__device__ __forceinline__ float reciprocal_approx(float x) {
    float y;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

// 1/sqrt(x); relative error below 2^-22. Emulated.
__device__ __forceinline__ float reciprocal_sqrt_approx(float x) {
    float y;
    asm("rsqrt.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

// Two floats to two f16, the first in the low half, to nearest even. Emulated.
__device__ __forceinline__ uint32 pack_halves(float low, float high) {
    half2 pair = __floats2half2_rn(low, high);
    return *reinterpret_cast<uint32*>(&pair);
}

// The reverse. Emulated.
__device__ __forceinline__ float2 unpack_halves(uint32 pair) {
    return __half22float2(*reinterpret_cast<half2*>(&pair));
}

#endif

// Sum over the 32 lanes, the same in every lane.
__device__ __forceinline__ float warp_sum(float value) {
#pragma unroll
    for (int lanes = WARP / 2; lanes > 0; lanes /= 2) value += __shfl_xor_sync(EVERY_LANE, value, lanes);
    return value;
}

// Maximum over the 32 lanes, the same in every lane.
__device__ __forceinline__ float warp_max(float value) {
#pragma unroll
    for (int lanes = WARP / 2; lanes > 0; lanes /= 2) {
        value = fmaxf(value, __shfl_xor_sync(EVERY_LANE, value, lanes));
    }
    return value;
}

// Sixteen bytes of f16 as eight floats, and back.
__device__ __forceinline__ void unpack_8(float to[8], uint4 from) {
    const uint32 words[4] = {from.x, from.y, from.z, from.w};
#pragma unroll
    for (int i = 0; i < 4; i++) {
        float2 pair = unpack_halves(words[i]);
        to[2 * i] = pair.x;
        to[2 * i + 1] = pair.y;
    }
}

__device__ __forceinline__ uint4 pack_8(const float from[8]) {
    return make_uint4(pack_halves(from[0], from[1]), pack_halves(from[2], from[3]),
                      pack_halves(from[4], from[5]), pack_halves(from[6], from[7]));
}

// Eight f32 at a 16-byte aligned address.
__device__ __forceinline__ void load_8(float to[8], const float* from) {
    const float4* quads = reinterpret_cast<const float4*>(from);
    float4 low = quads[0], high = quads[1];
    to[0] = low.x, to[1] = low.y, to[2] = low.z, to[3] = low.w;
    to[4] = high.x, to[5] = high.y, to[6] = high.z, to[7] = high.w;
}

// x·sigmoid(1.702·x)
__device__ __forceinline__ float quick_gelu_of(float x) {
    const float RATE = 1.702f * 1.4426950408889634f;
    return x * reciprocal_approx(1.0f + exp2_approx(-RATE * x));
}
