// Single instructions: raw operands in, raw results out. What a device gives for them is the oracle of the emulated one.
//
// Nothing is interpreted here: fragments are words as registers hold them, lane by lane, [case, register, lane]; shared memory
// is the words that lay there.

#include "common/mma.cuh"

// a: [cases, 4, 32], b: [cases, 2, 32], c, d: [cases, 4, 32]; a warp has a case.
#define MMA(name)                                                                                                      \
    KERNEL instructions_##name(const u32 *a, const u32 *b, const float *c, float *d) {                                 \
        const u64 at = u64(blockIdx.x) * 128 + threadIdx.x;                                                            \
        const u32 *right = b + u64(blockIdx.x) * 64 + threadIdx.x;                                                     \
        const u32 x[4] = {a[at], a[at + 32], a[at + 64], a[at + 96]};                                                  \
        float sums[4] = {c[at], c[at + 32], c[at + 64], c[at + 96]};                                                   \
        name(sums, x, right[0], right[32]);                                                                            \
        for (int i = 0; i < 4; i++) d[at + 32 * i] = sums[i];                                                          \
    }
MMA(mma_bf16)
MMA(mma_tf32)

// source: [1024] words of shared memory, offset: [32] bytes, the row that each lane names; out: [4, 32].
#define LOAD_MATRICES(name, transposed)                                                                                \
    KERNEL instructions_##name(const u32 *source, const u32 *offset, u32 *out) {                                       \
        __shared__ __align__(128) u32 words[1024];                                                                     \
        for (u32 i = threadIdx.x; i < 1024; i += 32) words[i] = source[i];                                             \
        __syncwarp();                                                                                                  \
        u32 r[4];                                                                                                      \
        load_matrices<transposed>(shared_address(words) + offset[threadIdx.x], r);                                     \
        for (int i = 0; i < 4; i++) out[32 * i + threadIdx.x] = r[i];                                                  \
    }
LOAD_MATRICES(ldmatrix, false)
LOAD_MATRICES(ldmatrix_trans, true)

// y[i] = f(x[i]); x, y: [n].
template <typename F> __device__ __forceinline__ void each(const float *x, u32 *y, u32 n, F f) {
    const u32 i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) y[i] = f(x[i]);
}

#define UNARY(name, instruction)                                                                                       \
    KERNEL instructions_##name(const float *x, u32 *y, u32 n) {                                                        \
        each(x, y, n, [](float v) {                                                                                    \
            float result;                                                                                              \
            asm volatile(instruction " %0, %1;" : "=f"(result) : "f"(v));                                              \
            return __float_as_uint(result);                                                                            \
        });                                                                                                            \
    }
UNARY(ex2, "ex2.approx.f32")
UNARY(ex2_ftz, "ex2.approx.ftz.f32")
UNARY(lg2, "lg2.approx.f32")
UNARY(rcp, "rcp.approx.f32")
UNARY(rsqrt, "rsqrt.approx.f32")
UNARY(sqrt, "sqrt.approx.f32")
UNARY(sin, "sin.approx.f32")
UNARY(cos, "cos.approx.f32")
UNARY(tanh, "tanh.approx.f32")

// The bits of two bfloat16: of v rounded, and of -v in the upper half.
KERNEL instructions_cvt_bf16x2(const float *x, u32 *y, u32 n) {
    each(x, y, n, [](float v) { return pack_bf16(v, -v); });
}
KERNEL instructions_cvt_tf32(const float *x, u32 *y, u32 n) {
    each(x, y, n, [](float v) { return to_tf32(v); });
}

// Functions that the compiler makes of several instructions.
#define FUNCTION(name)                                                                                                 \
    KERNEL instructions_##name(const float *x, u32 *y, u32 n) {                                                        \
        each(x, y, n, [](float v) { return __float_as_uint(name(v)); });                                               \
    }
FUNCTION(expf)
FUNCTION(logf)
FUNCTION(tanhf)
FUNCTION(erff)
FUNCTION(cbrtf)
FUNCTION(sinf)
FUNCTION(cosf)
