// Rows of x [rows, width] to unit Euclidean length: y = x / max(|x|, eps), and its gradient.
//
//   norm_l2_fwd_warp, norm_l2_bwd_warp      width <= 1024: a warp a row, which it holds in registers
//   norm_l2_fwd_block, norm_l2_bwd_block    wider: a block a row, read again from the first-level cache
//
// Warps do not wait for each other; a block's threads do, in its sums. Before squares are taken the row is scaled,
// exactly, by the power of two that brings its largest magnitude near 1: rows of 1e-30 or 1e30 neither vanish nor
// overflow.

#include "common/parts.cuh"
#include "common/reduce.cuh"

// Warps of a block that takes a row each, and of one that takes one row.
constexpr int ROWS = 4;
constexpr int WARPS = 8;

// What the row is multiplied by: 2^-exponent of its largest magnitude, within float32's normal numbers, and the
// inverse.
struct Scale {
    float down, up;
};

__device__ __forceinline__ Scale scale_of(float largest) {
    const int exponent = min(max(int(__float_as_uint(largest) >> 23), 1), 253) - 127; // -126 .. 126
    return {__uint_as_float(u32(127 - exponent) << 23), __uint_as_float(u32(127 + exponent) << 23)};
}

// y = x * down * factor, or x / eps for a row shorter than eps.
struct Length {
    float norm, down, factor;
    bool is_short;
};

__device__ __forceinline__ Length length_of(float squares, Scale scale, float eps) {
    const float scaled = sqrtf(squares), norm = scaled * scale.up;
    return {norm, scale.down, 1.0f / scaled, norm < eps};
}

__device__ __forceinline__ float unit(float x, const Length &length, float eps) {
    return length.is_short ? x / eps : x * length.down * length.factor;
}

template <int PACKS>
__device__ __forceinline__ void fwd_row(const element *x, element *y, float *norm, int width, float eps, bool aligned) {
    float v[PACKS][PACK], largest = 0.0f, squares = 0.0f;
#pragma unroll
    for (int k = 0; k < PACKS; k++) {
        const int at = (k * 32 + lane_id()) * PACK;
        load_part(x + at, width - at, aligned, v[k]);
#pragma unroll
        for (int i = 0; i < PACK; i++) largest = fmaxf(largest, fabsf(v[k][i]));
    }
    const Scale scale = scale_of(warp_max(largest));
#pragma unroll
    for (int k = 0; k < PACKS; k++) {
#pragma unroll
        for (int i = 0; i < PACK; i++) {
            const float scaled = v[k][i] * scale.down;
            squares += scaled * scaled;
        }
    }
    const Length length = length_of(warp_sum(squares), scale, eps);
#pragma unroll
    for (int k = 0; k < PACKS; k++) {
        const int at = (k * 32 + lane_id()) * PACK;
#pragma unroll
        for (int i = 0; i < PACK; i++) v[k][i] = unit(v[k][i], length, eps);
        store_part(y + at, width - at, aligned, v[k]);
    }
    if (lane_id() == 0) *norm = length.norm;
}

// x, y: [rows, width]; norm: [rows]. `aligned`: x and y start at multiples of 16 bytes, and so do rows.
KERNEL __launch_bounds__(32 * ROWS, 5)
ENTRY(norm_l2_fwd_warp)(const element *x, element *y, float *norm, u64 rows, u32 width, float eps, u32 aligned) {
    const u64 row = u64(blockIdx.x) * ROWS + warp_id();
    if (row >= rows) return;
    over_packs(width, [&](auto packs) {
        fwd_row<packs.value>(x + row * width, y + row * width, norm + row, width, eps, aligned);
    });
}

// As norm_l2_fwd_warp; block b has row b.
KERNEL __launch_bounds__(32 * WARPS)
ENTRY(norm_l2_fwd_block)(const element *__restrict__ x, element *__restrict__ y, float *norm, u32 width, float eps,
                         u32 aligned) {
    __shared__ float part[WARPS];
    const u64 start = u64(blockIdx.x) * width;
    const u32 begin = threadIdx.x * PACK, step = 32 * WARPS * PACK;
    float v[PACK], largest = 0.0f, squares = 0.0f;
    for (u32 at = begin; at < width; at += step) {
        load_part(x + start + at, width - at, aligned, v);
#pragma unroll
        for (int i = 0; i < PACK; i++) largest = fmaxf(largest, fabsf(v[i]));
    }
    const Scale scale = scale_of(block_max<WARPS>(largest, part));
    for (u32 at = begin; at < width; at += step) {
        load_part(x + start + at, width - at, aligned, v);
#pragma unroll
        for (int i = 0; i < PACK; i++) {
            const float scaled = v[i] * scale.down;
            squares += scaled * scaled;
        }
    }
    const Length length = length_of(block_sum<WARPS>(squares, part), scale, eps);
    for (u32 at = begin; at < width; at += step) {
        load_part(x + start + at, width - at, aligned, v);
#pragma unroll
        for (int i = 0; i < PACK; i++) v[i] = unit(v[i], length, eps);
        store_part(y + start + at, width - at, aligned, v);
    }
    if (threadIdx.x == 0) norm[blockIdx.x] = length.norm;
}

template <int PACKS>
__device__ __forceinline__ void bwd_row(const element *dy, const element *y, float norm, element *dx, int width,
                                        float eps, bool aligned) {
    float d[PACKS][PACK], v[PACKS][PACK], along = 0.0f;
#pragma unroll
    for (int k = 0; k < PACKS; k++) {
        const int at = (k * 32 + lane_id()) * PACK;
        load_part(dy + at, width - at, aligned, d[k]);
        load_part(y + at, width - at, aligned, v[k]);
    }
#pragma unroll
    for (int k = 0; k < PACKS; k++) {
#pragma unroll
        for (int i = 0; i < PACK; i++) along += d[k][i] * v[k][i];
    }
    // A row shorter than eps is divided by eps alone, which does not depend on its length.
    const bool is_short = norm < eps;
    along = is_short ? 0.0f : warp_sum(along);
    const float length = is_short ? eps : norm;
#pragma unroll
    for (int k = 0; k < PACKS; k++) {
        const int at = (k * 32 + lane_id()) * PACK;
#pragma unroll
        for (int i = 0; i < PACK; i++) d[k][i] = (d[k][i] - v[k][i] * along) / length;
        store_part(dx + at, width - at, aligned, d[k]);
    }
}

// dx = (dy - y (y . dy)) / |x|, or dy / eps for a row shorter than eps. dy, y, dx: [rows, width]; norm: [rows].
KERNEL __launch_bounds__(32 * ROWS, 5)
ENTRY(norm_l2_bwd_warp)(const element *dy, const element *y, const float *norm, element *dx, u64 rows, u32 width,
                        float eps, u32 aligned) {
    const u64 row = u64(blockIdx.x) * ROWS + warp_id();
    if (row >= rows) return;
    const u64 start = row * width;
    over_packs(width, [&](auto packs) {
        bwd_row<packs.value>(dy + start, y + start, norm[row], dx + start, width, eps, aligned);
    });
}

// As norm_l2_bwd_warp; block b has row b.
KERNEL __launch_bounds__(32 * WARPS)
ENTRY(norm_l2_bwd_block)(const element *__restrict__ dy, const element *__restrict__ y, const float *norm,
                         element *__restrict__ dx, u32 width, float eps, u32 aligned) {
    __shared__ float part[WARPS];
    const u64 start = u64(blockIdx.x) * width;
    const u32 begin = threadIdx.x * PACK, step = 32 * WARPS * PACK;
    float d[PACK], v[PACK], along = 0.0f;
    for (u32 at = begin; at < width; at += step) {
        load_part(dy + start + at, width - at, aligned, d);
        load_part(y + start + at, width - at, aligned, v);
#pragma unroll
        for (int i = 0; i < PACK; i++) along += d[i] * v[i];
    }
    along = block_sum<WARPS>(along, part);
    const bool is_short = norm[blockIdx.x] < eps;
    along = is_short ? 0.0f : along;
    const float length = is_short ? eps : norm[blockIdx.x];
    for (u32 at = begin; at < width; at += step) {
        load_part(dy + start + at, width - at, aligned, d);
        load_part(y + start + at, width - at, aligned, v);
#pragma unroll
        for (int i = 0; i < PACK; i++) d[i] = (d[i] - v[i] * along) / length;
        store_part(dx + start + at, width - at, aligned, d);
    }
}
