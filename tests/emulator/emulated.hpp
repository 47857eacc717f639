// The CUDA C++ that kernels/ is written in, for a C++ compiler: what kernels/common.cuh names as emulated.
//
// A kernel runs block by block on one thread of the processor. Its threads are fibers; one runs until it ends
// or reaches a barrier or a warp collective, then the next one goes on. A collective is carried out by the lane
// that arrives last, which sees every lane's arguments where they lie, on the stacks of the other fibers.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <tuple>
#include <utility>

#include "half.hpp"

#define __global__
#define __device__
#define __forceinline__ inline
#define __restrict__
// tests/emulator/build.sh reads the number out of the source; launches are checked against it.
#define __launch_bounds__(...)
// One block runs at a time. The section is poisoned before each.
#define __shared__ static __attribute__((section("emulated_shared")))
#define DYNAMIC_SHARED(name) uint4* name = static_cast<uint4*>(emulated::dynamic_shared())

struct alignas(8) uint2 { unsigned int x, y; };
struct alignas(16) uint4 { unsigned int x, y, z, w; };
struct alignas(8) float2 { float x, y; };
struct alignas(16) float4 { float x, y, z, w; };
struct dim3 { unsigned int x, y, z; };
struct half { uint16_t bits; };

inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }
inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }

// Of the fiber that runs; set at every switch.
extern dim3 threadIdx, blockIdx, blockDim, gridDim;

namespace emulated {

// Starts of all lanes' arguments to one collective; null for a lane that takes no part.
using Collective = void (*)(void* arguments[32]);

// Waits for all lanes of `mask` (of which the caller is one), then `act` has run.
void collective(Collective act, void* arguments, uint32_t mask);
void barrier();
void* dynamic_shared();
// Ends the launch; `what` says which rule of CUDA was broken.
[[noreturn]] void fault(const char* what);

struct Launch {
    dim3 grid, block;
    size_t dynamic_shared;
};

// Runs every thread of the launch. Returns an empty message, or what went wrong and where.
const char* run(const Launch& launch, void (*kernel)(void* context), void* context);

// For programs that test one kernel: emulated::launch({grid, block, bytes}, kernel, arguments…).
template <typename... Parameters, typename... Arguments>
const char* launch(const Launch& launch, void (*kernel)(Parameters...), Arguments... arguments) {
    auto packed = std::make_pair(kernel, std::tuple<Parameters...>(arguments...));
    return run(launch, [](void* context) {
        auto& call = *static_cast<decltype(packed)*>(context);
        std::apply(call.first, call.second);
    }, &packed);
}

struct Shuffle {
    uint32_t value;
    int lanes;
    uint32_t result;
};
void shuffle_xor(void* arguments[32]);
void shuffle_from(void* arguments[32]);
void nothing(void* arguments[32]);

struct Mma {
    float* d;
    const uint32_t *a, *b;
};
void mma(void* arguments[32]);

struct Ldmatrix {
    uint32_t* to;
    const void* row;
};
void ldmatrix(void* arguments[32]);
void ldmatrix_trans(void* arguments[32]);

void copy_async(void* shared, const void* global, bool valid);
void copy_async_commit();
void copy_async_wait(int latest);

inline uint32_t shuffle(Collective act, uint32_t mask, uint32_t value, int lanes) {
    Shuffle arguments{value, lanes, 0};
    collective(act, &arguments, mask);
    return arguments.result;
}

}  // namespace emulated

inline void __syncthreads() { emulated::barrier(); }
inline void __syncwarp(uint32_t mask = 0xffffffffu) { emulated::collective(emulated::nothing, nullptr, mask); }

inline float __uint_as_float(uint32_t bits) { return emulated::bits_to_float(bits); }
inline uint32_t __float_as_uint(float value) { return emulated::float_to_bits(value); }

inline float __shfl_xor_sync(uint32_t mask, float value, int lanes) {
    return __uint_as_float(emulated::shuffle(emulated::shuffle_xor, mask, __float_as_uint(value), lanes));
}
inline int __shfl_xor_sync(uint32_t mask, int value, int lanes) {
    return (int)emulated::shuffle(emulated::shuffle_xor, mask, (uint32_t)value, lanes);
}
inline uint32_t __shfl_xor_sync(uint32_t mask, uint32_t value, int lanes) {
    return emulated::shuffle(emulated::shuffle_xor, mask, value, lanes);
}
inline float __shfl_sync(uint32_t mask, float value, int lane) {
    return __uint_as_float(emulated::shuffle(emulated::shuffle_from, mask, __float_as_uint(value), lane));
}
inline int __shfl_sync(uint32_t mask, int value, int lane) {
    return (int)emulated::shuffle(emulated::shuffle_from, mask, (uint32_t)value, lane);
}

inline float __half2float(half value) { return emulated::half_to_float(value.bits); }
inline half __float2half(float value) { return {emulated::float_to_half(value)}; }

// cmath has fmaf, fmaxf, fminf, sqrtf, exp2f, rintf, floorf; these are CUDA's own.
inline int min(int a, int b) { return a < b ? a : b; }
inline int max(int a, int b) { return a > b ? a : b; }
inline unsigned min(unsigned a, unsigned b) { return a < b ? a : b; }
inline unsigned max(unsigned a, unsigned b) { return a > b ? a : b; }
inline float min(float a, float b) { return fminf(a, b); }
inline float max(float a, float b) { return fmaxf(a, b); }
inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }
inline int __float2int_rn(float x) { return (int)rintf(x); }
inline float __int2float_rn(int x) { return (float)x; }

template <typename T>
inline T __ldg(const T* from) { return *from; }
// One fiber runs at a time.
template <typename T>
inline T atomicAdd(T* to, T value) { T before = *to; *to = before + value; return before; }

inline void mma_16816(float d[4], const uint32_t a[4], const uint32_t b[2]) {
    emulated::Mma arguments{d, a, b};
    emulated::collective(emulated::mma, &arguments, 0xffffffffu);
}
inline void ldmatrix_x4(uint32_t r[4], const void* row) {
    emulated::Ldmatrix arguments{r, row};
    emulated::collective(emulated::ldmatrix, &arguments, 0xffffffffu);
}
inline void ldmatrix_x4_trans(uint32_t r[4], const void* row) {
    emulated::Ldmatrix arguments{r, row};
    emulated::collective(emulated::ldmatrix_trans, &arguments, 0xffffffffu);
}

// The bytes arrive when they are waited for, not before.
inline void copy_async_16(void* shared, const void* global, bool valid) {
    emulated::copy_async(shared, global, valid);
}
inline void copy_async_commit() { emulated::copy_async_commit(); }
template <int LATEST>
inline void copy_async_wait() { emulated::copy_async_wait(LATEST); }

inline float exp2_approx(float x) { return exp2f(x); }
inline float reciprocal_approx(float x) { return 1.0f / x; }
inline float reciprocal_sqrt_approx(float x) { return 1.0f / sqrtf(x); }

inline uint32_t pack_halves(float low, float high) {
    return emulated::float_to_half(low) | (uint32_t)emulated::float_to_half(high) << 16;
}
inline float2 unpack_halves(uint32_t pair) {
    return {emulated::half_to_float((uint16_t)pair), emulated::half_to_float((uint16_t)(pair >> 16))};
}
