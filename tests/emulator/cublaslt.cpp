// cuBLASLt as the backend uses it: D = alpha·op(A)·op(B) + beta·C (+ bias), column-major, f16 in, f32 sums, f16 or
// f32 out. Stricter than the library where it is vague: an algorithm is good for the product it was asked for
// and for pointers as aligned as the preference said, or as the bias was then; its workspace is overwritten. Sums
// are split, and their parts come together in the worst of the ways that the preference leaves open. The library does
// not outlive a context, and takes memory for its kernels at the first product.
#include "half.hpp"
#include "work.hpp"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#define EXPORT extern "C" __attribute__((visibility("default")))

#if defined(__x86_64__)
#define FOR_EACH_PROCESSOR __attribute__((target_clones("default", "avx2")))
#else
#define FOR_EACH_PROCESSOR
#endif

using emulated::Act;
using emulated::Status;

EXPORT int emulated_enqueue(void* stream, Act act);
EXPORT bool emulated_is_device(const void* from, size_t bytes);
EXPORT int emulated_check_guards(const char* what);
EXPORT bool emulated_lost_a_context();
EXPORT bool emulated_reserve(size_t bytes);
EXPORT size_t emulated_memory();
EXPORT void emulated_note(const char* what);

namespace {

// cublasStatus_t, cudaDataType_t, cublasComputeType_t, cublasLtEpilogue_t
enum { OK = 0, NOT_INITIALIZED = 1, ALLOC_FAILED = 3, INVALID = 7, EXECUTION_FAILED = 13, NOT_SUPPORTED = 15 };
enum { F32 = 0, F16 = 2 };
enum { COMPUTE_F32 = 68 };
enum { EPILOGUE_DEFAULT = 1, EPILOGUE_BIAS = 4 };
// cublasLtReductionScheme_t: where parts of a sum are kept in the output's type.
enum { INPLACE = 1, OUTPUT_TYPE = 4, ANY_SCHEME = 7 };

struct Layout {
    int type;
    uint64_t rows, columns;
    int64_t ld;
    uint64_t bytes() const { return ((columns - 1) * (uint64_t)ld + rows) * (type == F16 ? 2 : 4); }
};

struct Desc {
    int compute, scale, op_a = 0, op_b = 0, epilogue = EPILOGUE_DEFAULT;
    uint64_t bias = 0;
};

struct Preference {
    uint64_t workspace = 0;
    uint32_t schemes = ANY_SCHEME;
    uint32_t aligned[4] = {256, 256, 256, 256};
};

// Inside the caller's 64 opaque bytes.
struct Algorithm {
    uint64_t product, workspace;
    uint32_t aligned[4];
    uint32_t bias_aligned;
    // Whether parts of sums are rounded to f16.
    uint32_t rounds;
};

struct Heuristic {
    uint64_t algorithm[8];
    size_t workspace;
    int state;
    float waves;
    int reserved[4];
};

constexpr uint64_t WORKSPACE = 1 << 20;
// Of a sum; so many products make a part.
constexpr size_t PART = 64, WHOLE = 512;

uint32_t alignment_of(uint64_t address) {
    uint32_t aligned = 1;
    while (aligned < 256 && address % (2 * aligned) == 0) aligned *= 2;
    return aligned;
}

uint64_t mix(uint64_t hash, uint64_t value) { return (hash ^ value) * 0x100000001b3 + 0x9e3779b9; }

uint64_t product_of(const Desc& desc, const Layout& a, const Layout& b, const Layout& c, const Layout& d) {
    uint64_t hash = 0xcbf29ce484222325;
    for (int value : {desc.compute, desc.scale, desc.op_a, desc.op_b, desc.epilogue}) hash = mix(hash, value);
    for (const Layout* layout : {&a, &b, &c, &d}) {
        for (uint64_t value : {(uint64_t)layout->type, layout->rows, layout->columns, (uint64_t)layout->ld}) {
            hash = mix(hash, value);
        }
    }
    return hash;
}

bool is_supported(const Desc& desc, const Layout& a, const Layout& b, const Layout& c, const Layout& d) {
    uint64_t m = desc.op_a ? a.columns : a.rows, k = desc.op_a ? a.rows : a.columns;
    uint64_t n = desc.op_b ? b.rows : b.columns, k_of_b = desc.op_b ? b.columns : b.rows;
    for (const Layout* layout : {&a, &b, &c, &d}) {
        if (layout->rows == 0 || layout->columns == 0 || layout->ld < (int64_t)layout->rows) return false;
    }
    return desc.compute == COMPUTE_F32 && desc.scale == F32 && a.type == F16 && b.type == F16 && c.type == d.type &&
           (d.type == F16 || (d.type == F32 && desc.epilogue == EPILOGUE_DEFAULT)) && k == k_of_b && d.rows == m &&
           d.columns == n && c.rows == m && c.columns == n;
}

// Rows of A and columns of B that one pass holds in registers: 12 of AVX2's 16.
constexpr size_t TALL = 16, WIDE = 6;

// sums[j][i] = Σ_k a[k][i]·b[j][k]. Vectors are lowered before functions are cloned for a processor, so each
// processor's is written out by the macro.
#define TILE(name, ...)                                                                          \
    __VA_ARGS__ void name(const float* a, const float* const* b, size_t depth, float* sums) {    \
        typedef float Vector __attribute__((vector_size(32)));                                   \
        Vector sum[WIDE][2] = {};                                                                \
        for (size_t k = 0; k < depth; k++) {                                                     \
            const Vector* column = reinterpret_cast<const Vector*>(a + k * TALL);                \
            Vector low = column[0], high = column[1];                                            \
            _Pragma("GCC unroll 6") for (size_t j = 0; j < WIDE; j++) {                          \
                sum[j][0] += low * b[j][k];                                                      \
                sum[j][1] += high * b[j][k];                                                     \
            }                                                                                    \
        }                                                                                        \
        memcpy(sums, sum, sizeof sum);                                                           \
    }
TILE(tile_anywhere)
#if defined(__x86_64__)
TILE(tile_avx2, __attribute__((target("avx2,fma"))))
const auto tile = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") ? tile_avx2 : tile_anywhere;
#else
const auto tile = tile_anywhere;
#endif

FOR_EACH_PROCESSOR void to_floats(const uint16_t* from, size_t count, float* to) {
    for (size_t i = 0; i < count; i++) to[i] = emulated::half_to_float(from[i]);
}

struct Product {
    Desc desc;
    Layout a, b, c, d;
    const uint16_t *a_at, *b_at;
    const void* c_at;
    void* d_at;
    float alpha, beta;
    void* workspace;
    bool rounds;
};

// `layout`'s matrix as floats with k along memory: [other][k].
std::vector<float> unpack(const uint16_t* from, const Layout& layout, bool k_is_column) {
    size_t k = k_is_column ? layout.columns : layout.rows, other = k_is_column ? layout.rows : layout.columns;
    std::vector<float> out(k * other);
    if (!k_is_column) {
        for (size_t i = 0; i < other; i++) to_floats(from + i * (size_t)layout.ld, k, &out[i * k]);
    } else {
        std::vector<float> column(other);
        for (size_t i = 0; i < k; i++) {
            to_floats(from + i * (size_t)layout.ld, other, column.data());
            for (size_t j = 0; j < other; j++) out[j * k + i] = column[j];
        }
    }
    return out;
}

void write(const Product& p, size_t row, size_t column, float sum) {
    size_t at = column * (size_t)p.d.ld + row, c_index = column * (size_t)p.c.ld + row;
    float value = p.alpha * sum;
    if (p.d.type == F16) {
        if (p.beta != 0) value += p.beta * emulated::half_to_float(static_cast<const uint16_t*>(p.c_at)[c_index]);
        if (p.desc.epilogue == EPILOGUE_BIAS) {
            value += emulated::half_to_float(reinterpret_cast<const uint16_t*>(p.desc.bias)[row]);
        }
        static_cast<uint16_t*>(p.d_at)[at] = emulated::float_to_half(value);
    } else {
        if (p.beta != 0) value += p.beta * static_cast<const float*>(p.c_at)[c_index];
        static_cast<float*>(p.d_at)[at] = value;
    }
}

Status fail(const char* why) {
    fprintf(stderr, "emulated device: cublasLtMatmul: %s\n", why);
    return emulated::ILLEGAL_ADDRESS;
}

Status run(const Product& p) {
    const size_t m = p.d.rows, n = p.d.columns, k = p.desc.op_a ? p.a.rows : p.a.columns;
    auto outside = [](const void* at, const Layout& layout) { return !emulated_is_device(at, layout.bytes()); };
    if (outside(p.a_at, p.a) || outside(p.b_at, p.b) || outside(p.d_at, p.d) || (p.beta != 0 && outside(p.c_at, p.c))) {
        return fail("a matrix lies outside of every allocation");
    }
    if (p.desc.epilogue == EPILOGUE_BIAS && !emulated_is_device((const void*)p.desc.bias, m * 2)) {
        return fail("the bias lies outside of every allocation");
    }
    if (!emulated_is_device(p.workspace, WORKSPACE)) return fail("the workspace lies outside of every allocation");
    memset(p.workspace, 0xff, WORKSPACE);

    // op(A)[row][k] and op(B)[column][k].
    std::vector<float> a = unpack(p.a_at, p.a, p.desc.op_a == 0), b = unpack(p.b_at, p.b, p.desc.op_b != 0);
    const size_t DEPTH = p.rounds ? PART : WHOLE;
    if (p.rounds && k > DEPTH) emulated_note("sum rounded to f16");
    auto* panel = static_cast<float*>(aligned_alloc(64, DEPTH * TALL * sizeof(float)));
    alignas(64) float sums[WIDE * TALL];
    std::vector<float> all(n * TALL);
    for (size_t row = 0; row < m; row += TALL) {
        size_t rows = std::min(TALL, m - row);
        std::fill(all.begin(), all.end(), 0.0f);
        for (size_t from = 0; from < k; from += DEPTH) {
            size_t depth = std::min(DEPTH, k - from);
            for (size_t i = 0; i < TALL; i++) {
                const float* source = &a[std::min(row + i, m - 1) * k + from];
                for (size_t j = 0; j < depth; j++) panel[j * TALL + i] = source[j];
            }
            for (size_t column = 0; column < n; column += WIDE) {
                const float* columns[WIDE];
                for (size_t j = 0; j < WIDE; j++) columns[j] = &b[std::min(column + j, n - 1) * k + from];
                tile(panel, columns, depth, sums);
                for (size_t j = 0; j < std::min(WIDE, n - column); j++) {
                    for (size_t i = 0; i < TALL; i++) {
                        float& sum = all[(column + j) * TALL + i];
                        sum += sums[j * TALL + i];
                        if (p.rounds) sum = emulated::half_to_float(emulated::float_to_half(sum));
                    }
                }
            }
        }
        for (size_t column = 0; column < n; column++) {
            for (size_t i = 0; i < rows; i++) write(p, row + i, column, all[column * TALL + i]);
        }
    }
    free(panel);
    return (Status)emulated_check_guards("cublasLtMatmul");
}

}  // namespace

EXPORT size_t cublasLtGetVersion() { return 120000; }
EXPORT int cublasLtCreate(void** handle) {
    // Nothing promises that what the library keeps outlives the context it was made in.
    if (emulated_lost_a_context()) return NOT_INITIALIZED;
    *handle = new int(0);
    return OK;
}
EXPORT int cublasLtDestroy(void* handle) {
    delete static_cast<int*>(handle);
    return OK;
}

EXPORT int cublasLtMatmulDescCreate(void** desc, int compute, int scale) {
    auto* made = new Desc;
    made->compute = compute;
    made->scale = scale;
    *desc = made;
    return OK;
}
EXPORT int cublasLtMatmulDescDestroy(void* desc) {
    delete static_cast<Desc*>(desc);
    return OK;
}
EXPORT int cublasLtMatmulDescSetAttribute(void* desc, int attribute, const void* value, size_t bytes) {
    auto* to = static_cast<Desc*>(desc);
    if (attribute == 8) {
        if (bytes != 8) return INVALID;
        memcpy(&to->bias, value, 8);
        return OK;
    }
    int* field = attribute == 3 ? &to->op_a : attribute == 4 ? &to->op_b : attribute == 7 ? &to->epilogue : nullptr;
    if (field == nullptr || bytes != 4) return INVALID;
    memcpy(field, value, 4);
    return OK;
}

EXPORT int cublasLtMatrixLayoutCreate(void** layout, int type, uint64_t rows, uint64_t columns, int64_t ld) {
    *layout = new Layout{type, rows, columns, ld};
    return OK;
}
EXPORT int cublasLtMatrixLayoutDestroy(void* layout) {
    delete static_cast<Layout*>(layout);
    return OK;
}

EXPORT int cublasLtMatmulPreferenceCreate(void** preference) {
    *preference = new Preference;
    return OK;
}
EXPORT int cublasLtMatmulPreferenceDestroy(void* preference) {
    delete static_cast<Preference*>(preference);
    return OK;
}
EXPORT int cublasLtMatmulPreferenceSetAttribute(void* preference, int attribute, const void* value, size_t bytes) {
    auto* to = static_cast<Preference*>(preference);
    if (attribute == 1 && bytes == 8) {
        memcpy(&to->workspace, value, 8);
    } else if (attribute == 3 && bytes == 4) {
        memcpy(&to->schemes, value, 4);
    } else if (attribute >= 5 && attribute <= 8 && bytes == 4) {
        memcpy(&to->aligned[attribute - 5], value, 4);
    } else {
        return INVALID;
    }
    return OK;
}

EXPORT int cublasLtMatmulAlgoGetHeuristic(void*, void* desc, void* a, void* b, void* c, void* d, void* preference,
                                          int most, Heuristic* results, int* count) {
    *count = 0;
    if (most < 1) return INVALID;
    const auto& asked = *static_cast<Desc*>(desc);
    const auto &la = *static_cast<Layout*>(a), &lb = *static_cast<Layout*>(b), &lc = *static_cast<Layout*>(c),
               &ld = *static_cast<Layout*>(d);
    const auto& wish = *static_cast<Preference*>(preference);
    // Without alignments to 2 bytes at least, or working memory, nothing fits here.
    if (!is_supported(asked, la, lb, lc, ld) || wish.workspace < WORKSPACE) return NOT_SUPPORTED;
    const bool rounds = ld.type == F16 && (wish.schemes & (INPLACE | OUTPUT_TYPE)) != 0;
    Algorithm algorithm{product_of(asked, la, lb, lc, ld), WORKSPACE, {}, alignment_of(asked.bias), rounds};
    memcpy(algorithm.aligned, wish.aligned, sizeof wish.aligned);
    memset(results, 0, sizeof *results);
    memcpy(results->algorithm, &algorithm, sizeof algorithm);
    results->workspace = WORKSPACE;
    results->waves = 1;
    *count = 1;
    return OK;
}

EXPORT int cublasLtMatmul(void*, void* desc, const void* alpha, const void* a_at, void* a, const void* b_at, void* b,
                          const void* beta, const void* c_at, void* c, void* d_at, void* d, const void* algorithm,
                          void* workspace, size_t workspace_bytes, void* stream) {
    Product product{*static_cast<Desc*>(desc),
                    *static_cast<Layout*>(a),
                    *static_cast<Layout*>(b),
                    *static_cast<Layout*>(c),
                    *static_cast<Layout*>(d),
                    static_cast<const uint16_t*>(a_at),
                    static_cast<const uint16_t*>(b_at),
                    c_at,
                    d_at,
                    *static_cast<const float*>(alpha),
                    *static_cast<const float*>(beta),
                    workspace,
                    false};
    if (!is_supported(product.desc, product.a, product.b, product.c, product.d)) return NOT_SUPPORTED;
    // Without one the library would ask its heuristic at every call.
    if (algorithm == nullptr) return INVALID;
    Algorithm chosen;
    memcpy(&chosen, algorithm, sizeof chosen);
    if (chosen.product != product_of(product.desc, product.a, product.b, product.c, product.d)) return INVALID;
    const void* pointers[4] = {a_at, b_at, c_at, d_at};
    for (int i = 0; i < 4; i++) {
        if ((uintptr_t)pointers[i] % chosen.aligned[i] != 0) return INVALID;
    }
    if (product.desc.bias % chosen.bias_aligned != 0) return INVALID;
    product.rounds = chosen.rounds != 0;
    // Code is loaded when it is first needed.
    static const bool loaded = emulated_reserve(emulated_memory() / 32);
    if (!loaded) return ALLOC_FAILED;
    if (workspace_bytes < chosen.workspace || (uintptr_t)workspace % 256 != 0) return INVALID;
    int status = emulated_enqueue(stream, [product] { return run(product); });
    return status == 0 ? OK : EXECUTION_FAILED;
}
