// Chains of elementwise steps in one pass: bias and activation, and the end of a residual branch. What lies between the
// steps is never written; the pre-activation, which backward needs, is written once.
//
// Each thread makes one pack of 16 bytes, beside a scale 4 elements, where the width of rows and all addresses allow
// it, else as many elements one by one. Threads do not wait for each other, but in residual_scale_bwd: there a block
// takes `lanes` fours of columns of one piece of the rows and adds up the columns of the scale's gradient in float32,
// in an order that depends on the sizes alone; a further launch adds the pieces (reduce). Arithmetic is in float32; a
// bf16 result is rounded once.

#include "common/divisor.cuh"
#include "common/few.cuh"
#include "common/math.cuh"
#include "common/reduce.cuh"

// n / d, with a 64-bit division only where n needs it.
__device__ __forceinline__ u64 over(u64 n, const Divisor &d) { return n >> 31 ? n / d.divisor : quotient(n, d); }

// Elements of a thread beside a scale, which is f32 whatever the element type: with a pack of 8 in bf16 every request
// for the scale would use half of its sectors.
constexpr int FEW = 4;

// y = f(x + bias) with f(pre) = value; pre where KEEP. x, y, pre: [n / width, width], bias: [width]
#define BIAS(name, KEEP, value)                                                                                        \
    KERNEL ENTRY(name)(const element *x, const element *bias, element *y, element *pre_out, u64 n, Divisor width,      \
                       u32 vector) {                                                                                   \
        const u64 start = (u64(blockIdx.x) * blockDim.x + threadIdx.x) * PACK;                                         \
        if (start >= n) return;                                                                                        \
        if (vector) {                                                                                                  \
            float a[PACK], b[PACK];                                                                                    \
            load_pack(x + start, a);                                                                                   \
            load_pack(bias + (start - over(start, width) * width.divisor), b);                                         \
            _Pragma("unroll") for (int i = 0; i < PACK; i++) {                                                         \
                const float pre = a[i] + b[i];                                                                         \
                b[i] = pre;                                                                                            \
                a[i] = value;                                                                                          \
            }                                                                                                          \
            store_pack(y + start, a);                                                                                  \
            if (KEEP) store_pack(pre_out + start, b);                                                                  \
            return;                                                                                                    \
        }                                                                                                              \
        for (u64 i = start; i < n && i < start + PACK; i++) {                                                          \
            const float pre = to_float(x[i]) + to_float(bias[i - over(i, width) * width.divisor]);                     \
            from_float(value, y[i]);                                                                                   \
            if (KEEP) from_float(pre, pre_out[i]);                                                                     \
        }                                                                                                              \
    }

BIAS(elementwise_bias_gelu, true, pre *normal_cdf(pre))
BIAS(elementwise_bias_relu, false, pre < 0.0f ? 0.0f : pre)

// out[r, j] = x[r, j] + scale[j] keep[r / rows] branch[r, j]; scale and keep may be missing (1), and x too (0)
// x, branch, out: [n / width, width], scale: [width], keep: [samples], rows: rows of a sample
KERNEL ENTRY(elementwise_residual_scale)(const element *x, const element *branch, const float *scale,
                                         const float *keep, element *out, u64 n, Divisor width, Divisor rows,
                                         u32 vector) {
    const u64 start = (u64(blockIdx.x) * blockDim.x + threadIdx.x) * FEW;
    if (start >= n) return;
    if (vector) {
        const u64 row = over(start, width);
        const float kept = keep ? keep[over(row, rows)] : 1.0f;
        float a[FEW] = {}, b[FEW], s[FEW];
        if (x) load_few(x + start, a);
        load_few(branch + start, b);
#pragma unroll
        for (int i = 0; i < FEW; i++) s[i] = 1.0f;
        if (scale) load_few(scale + (start - row * width.divisor), s);
#pragma unroll
        for (int i = 0; i < FEW; i++) a[i] += s[i] * kept * b[i];
        store_few(out + start, a);
        return;
    }
    for (u64 i = start; i < n && i < start + FEW; i++) {
        const u64 row = over(i, width);
        const float factor = (scale ? scale[i - row * width.divisor] : 1.0f) * (keep ? keep[over(row, rows)] : 1.0f);
        from_float((x ? to_float(x[i]) : 0.0f) + factor * to_float(branch[i]), out[i]);
    }
}

constexpr int WARPS = 8; // of a block

// Four neighbouring elements, one by one where the address is not aligned to their size: the same thread has the same
// elements then, and sums have the same order.
template <typename T> __device__ __forceinline__ void load_fours(const T *at, float (&v)[FEW], bool aligned) {
    if (aligned) return load_few(at, v);
#pragma unroll
    for (int i = 0; i < FEW; i++) v[i] = to_float(at[i]);
}

// dbranch[r, j] = scale[j] keep[r / rows] dy[r, j]
// dscale[piece, j] = sum over the piece's r of keep[r / rows] dy[r, j] branch[r, j]
// dy, branch, dbranch: [total, width], scale: [width], keep: [samples] or missing, dscale: [pieces, width]
template <bool VECTOR>
__device__ __forceinline__ void residual_backward(const element *dy, const element *branch, const float *scale,
                                                  const float *keep, element *dbranch, float *dscale, u64 total,
                                                  u64 width, u64 step, u32 tiles, u32 log_lanes, const Divisor &rows,
                                                  bool aligned) {
    constexpr int WIDTH = VECTOR ? FEW : 1;
    constexpr int PITCH = 32 + 32 / WIDTH; // lanes of different columns of a thread lie in different banks
    __shared__ float part[WARPS][WIDTH * PITCH];

    const u32 lanes = 1u << log_lanes, rows_of_warp = 32 >> log_lanes;
    const u32 lane = lane_id() & (lanes - 1);
    const u32 tile = blockIdx.x % tiles, piece = blockIdx.x / tiles;
    const u64 first = u64(piece) * step, last = first + step < total ? first + step : total;
    const u64 start = u64(tile) * lanes * WIDTH, column = start + lane * WIDTH;

    float sum[WIDTH] = {};
    if (column < width) {
        float s[WIDTH];
        if constexpr (VECTOR) {
            load_fours(scale + column, s, aligned);
        } else {
            s[0] = scale[column];
        }
        const u64 stride = u64(WARPS) * rows_of_warp;
        for (u64 row = first + warp_id() * rows_of_warp + (lane_id() >> log_lanes); row < last; row += stride) {
            const float kept = keep ? keep[over(row, rows)] : 1.0f;
            const u64 at = row * width + column;
            float g[WIDTH], b[WIDTH];
            if constexpr (VECTOR) {
                load_fours(dy + at, g, aligned);
                load_fours(branch + at, b, aligned);
            } else {
                g[0] = to_float(dy[at]), b[0] = to_float(branch[at]);
            }
#pragma unroll
            for (int i = 0; i < WIDTH; i++) {
                sum[i] += kept * g[i] * b[i];
                g[i] *= s[i] * kept;
            }
            if constexpr (VECTOR) {
                store_few_global(dbranch + at, g);
            } else {
                from_float(g[0], dbranch[at]);
            }
        }
    }
    for (u32 distance = 16; distance >= lanes; distance /= 2) {
#pragma unroll
        for (int i = 0; i < WIDTH; i++) sum[i] += __shfl_xor_sync(ALL_LANES, sum[i], distance);
    }
#pragma unroll
    for (int i = 0; i < WIDTH; i++) part[warp_id()][i * PITCH + lane_id()] = sum[i];
    __syncthreads(); // part is written
    for (u32 c = threadIdx.x; c < lanes * WIDTH && start + c < width; c += blockDim.x) {
        const u32 at = (c % WIDTH) * PITCH + c / WIDTH;
        float all = part[0][at];
#pragma unroll
        for (int w = 1; w < WARPS; w++) all += part[w][at];
        dscale[u64(piece) * width + start + c] = all;
    }
}

KERNEL ENTRY(elementwise_residual_scale_bwd)(const element *dy, const element *branch, const float *scale,
                                             const float *keep, element *dbranch, float *dscale, u64 total, u64 width,
                                             u64 step, u32 tiles, u32 log_lanes, Divisor rows, u32 vector) {
    if (vector != BY_ELEMENT) {
        residual_backward<true>(dy, branch, scale, keep, dbranch, dscale, total, width, step, tiles, log_lanes, rows,
                                vector == BY_PACK);
    } else {
        residual_backward<false>(dy, branch, scale, keep, dbranch, dscale, total, width, step, tiles, log_lanes, rows,
                                 false);
    }
}
