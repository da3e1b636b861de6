// One result element from the same element of each input.
//
// Each thread makes one pack of 16 bytes (4 elements of f32, 8 of bf16), reading each input once. Where an address is
// not a multiple of 16, and in the last pack of a ragged length, a thread goes element by element. Threads do not wait
// for each other. Arithmetic is in float32; a bf16 result is rounded once.

#include "common/element.cuh"
#include "common/math.cuh"

// Where a thread's pack starts, and how many elements it has.
struct Place {
    u64 start;
    int count;
};

__device__ __forceinline__ Place place(u64 n) {
    u64 start = (u64(blockIdx.x) * blockDim.x + threadIdx.x) * PACK;
    return {start, start >= n ? 0 : int(n - start < PACK ? n - start : PACK)};
}

__device__ __forceinline__ void load(const element *x, Place at, bool aligned, float (&v)[PACK]) {
    if (aligned && at.count == PACK) return load_pack(x + at.start, v);
#pragma unroll
    for (int i = 0; i < PACK; i++) v[i] = i < at.count ? to_float(x[at.start + i]) : 0.0f;
}

__device__ __forceinline__ void store(element *out, Place at, bool aligned, const float (&v)[PACK]) {
    if (aligned && at.count == PACK) return store_pack(out + at.start, v);
#pragma unroll
    for (int i = 0; i < PACK; i++)
        if (i < at.count) from_float(v[i], out[at.start + i]);
}

// out[i] = value(x[i]); x, out: [n]
#define UNARY(name, value)                                                                                             \
    KERNEL ENTRY(name)(const element *x_in, element *out, u64 n, float s, u32 aligned) {                               \
        Place at = place(n);                                                                                           \
        if (at.count == 0) return;                                                                                     \
        float a[PACK];                                                                                                 \
        load(x_in, at, aligned, a);                                                                                    \
        _Pragma("unroll") for (int i = 0; i < PACK; i++) {                                                             \
            const float x = a[i];                                                                                      \
            a[i] = value;                                                                                              \
        }                                                                                                              \
        store(out, at, aligned, a);                                                                                    \
    }

// out[i] = value(x[i], y[i]); x, y, out: [n]. out may be x or y.
#define BINARY(name, value)                                                                                            \
    KERNEL ENTRY(name)(const element *x_in, const element *y_in, element *out, u64 n, float s, u32 aligned) {          \
        Place at = place(n);                                                                                           \
        if (at.count == 0) return;                                                                                     \
        float a[PACK], b[PACK];                                                                                        \
        load(x_in, at, aligned, a);                                                                                    \
        load(y_in, at, aligned, b);                                                                                    \
        _Pragma("unroll") for (int i = 0; i < PACK; i++) {                                                             \
            const float x = a[i], y = b[i];                                                                            \
            a[i] = value;                                                                                              \
        }                                                                                                              \
        store(out, at, aligned, a);                                                                                    \
    }

UNARY(elementwise_scale, s *x)
UNARY(elementwise_relu, x < 0.0f ? 0.0f : x)
UNARY(elementwise_gelu, x *normal_cdf(x))
UNARY(elementwise_tanh, tanhf(x))
UNARY(elementwise_ln, logf(x))

BINARY(elementwise_add, x + y)
BINARY(elementwise_sub, x - y)
BINARY(elementwise_mul, x *y)
BINARY(elementwise_add_scaled, x + s * y)
// x is dy, y the result of relu.
BINARY(elementwise_relu_bwd, y > 0.0f ? x : 0.0f)
// x is dy, y the input of tanh.
BINARY(elementwise_tanh_bwd, x *tanh_slope(y))
// x is dy, y the input of gelu.
BINARY(elementwise_gelu_bwd, x *(normal_cdf(y) + y * normal_density(y)))

// a[i] = keep * a[i] + factor * b[i]; a, b: [n]
KERNEL ENTRY(elementwise_blend)(element *a, const element *b, u64 n, float keep, float factor, u32 aligned) {
    Place at = place(n);
    if (at.count == 0) return;
    float x[PACK], y[PACK];
    load(a, at, aligned, x);
    load(b, at, aligned, y);
#pragma unroll
    for (int i = 0; i < PACK; i++) x[i] = keep * x[i] + factor * y[i];
    store(a, at, aligned, x);
}

// out[r, j] = x[r, j] + bias[j]; x, out: [n / width, width], bias: [width]
KERNEL ENTRY(elementwise_add_bias)(const element *x, const element *bias, element *out, u64 n, u64 width, u32 aligned,
                                   u32 bias_aligned) {
    Place at = place(n);
    if (at.count == 0) return;
    float a[PACK];
    load(x, at, aligned, a);
    u64 column = at.start % width;
    if (width % PACK == 0) {
        // A pack lies in one row, and is whole.
        float b[PACK];
        load_pack(bias + column, b, bias_aligned);
#pragma unroll
        for (int i = 0; i < PACK; i++) a[i] += b[i];
    } else {
#pragma unroll
        for (int i = 0; i < PACK; i++) {
            if (i < at.count) a[i] += to_float(bias[column]);
            column = column + 1 == width ? 0 : column + 1;
        }
    }
    store(out, at, aligned, a);
}
