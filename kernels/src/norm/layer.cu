// Layer normalisation of the rows of x [rows, width]: y = (x - mean) * rstd * weight + bias, and, fused in front, the
// residual's addition x = x + branch, which is stored once, rounded, and normalised as rounded. Neither the normalised
// row nor an unrounded sum is stored.
//
//   norm_layer_fwd_warp     width <= 1024: a warp a row, which it holds in registers
//   norm_layer_fwd_block    wider: a block a row, read again from the first-level cache
//
// Lanes take packs of 16 bytes in turn. Warps do not wait for each other; a block's threads do, in its sums.
//
// Statistics: elements are summed without rounding, in pairs of floats and then in float64, squares about the mean
// rounded to float32. What this rounding missed is taken off once more before scaling, and goes into the variance.

#include "common/parts.cuh"
#include "common/reduce.cuh"

// Warps of a block, a row each.
constexpr int ROWS = 4;
// Warps of a block that has one row.
constexpr int WARPS = 8;

// A sum of floats and what its rounding lost (Knuth, "The art of computer programming 2", 4.2.2, theorem B).
struct Sum {
    float high = 0.0f, low = 0.0f;

    __device__ __forceinline__ void add(float x) {
        const float sum = high + x, part = sum - high;
        low += (high - (sum - part)) + (x - part);
        high = sum;
    }
    __device__ __forceinline__ double value() const { return double(high) + double(low); }
};

// The mean is near + missed.
struct Mean {
    float near, missed;
};

__device__ __forceinline__ Mean mean_of(double sum, u32 width) {
    const double mean = sum / width;
    return {float(mean), float(mean - double(float(mean)))};
}

// 1 / sqrt(variance + eps) from the squares about the near mean. Rounding may leave less than nothing; NaN stays.
__device__ __forceinline__ float rstd_of(float squares, u32 width, const Mean &m, float eps) {
    const float exact = squares / width - m.missed * m.missed, variance = exact < 0.0f ? 0.0f : exact;
    return 1.0f / sqrtf(variance + eps);
}

// y of `count` elements; weight and bias may be null. All lanes of a warp call this.
__device__ __forceinline__ void write(element *y, const float *weight, const float *bias, int count, bool aligned,
                                      const Mean &m, float rstd, float (&v)[PACK]) {
#pragma unroll
    for (int i = 0; i < PACK; i++) v[i] = ((v[i] - m.near) - m.missed) * rstd;
    float parameter[PACK];
    if (weight) {
        load_warp_floats(weight, count, aligned, parameter);
#pragma unroll
        for (int i = 0; i < PACK; i++) v[i] *= parameter[i];
    }
    if (bias) {
        load_warp_floats(bias, count, aligned, parameter);
#pragma unroll
        for (int i = 0; i < PACK; i++) v[i] += parameter[i];
    }
    store_part(y, count, aligned, v);
}

__device__ __forceinline__ const float *offset(const float *values, u32 at) { return values ? values + at : nullptr; }

// One row by one warp; a lane has PACKS packs of it at most.
template <int PACKS>
__device__ __forceinline__ void warp_row(const element *x, const element *branch, const float *weight,
                                         const float *bias, element *sum, element *y, float *mean, float *rstd,
                                         int width, float eps, bool aligned) {
    uint4 bits[PACKS];
    float v[PACKS][PACK];
#pragma unroll
    for (int k = 0; k < PACKS; k++) {
        const int at = (k * 32 + lane_id()) * PACK;
        bits[k] = load_bits(x + at, width - at, aligned);
    }
    if (branch) {
        uint4 other[PACKS];
#pragma unroll
        for (int k = 0; k < PACKS; k++) {
            const int at = (k * 32 + lane_id()) * PACK;
            other[k] = load_bits(branch + at, width - at, aligned);
        }
#pragma unroll
        for (int k = 0; k < PACKS; k++) {
            const int at = (k * 32 + lane_id()) * PACK;
            float added[PACK];
            unpack(bits[k], v[k]);
            unpack(other[k], added);
#pragma unroll
            for (int i = 0; i < PACK; i++) v[k][i] = rounded(v[k][i] + added[i]);
            store_part(sum + at, width - at, aligned, v[k]);
        }
    } else {
#pragma unroll
        for (int k = 0; k < PACKS; k++) unpack(bits[k], v[k]);
    }
    Sum sum_of;
    float squares = 0.0f;
#pragma unroll
    for (int k = 0; k < PACKS; k++) {
#pragma unroll
        for (int i = 0; i < PACK; i++) sum_of.add(v[k][i]);
    }
    const Mean m = mean_of(warp_sum(sum_of.value()), width);
#pragma unroll
    for (int k = 0; k < PACKS; k++) {
        const int left = width - (k * 32 + lane_id()) * PACK;
#pragma unroll
        for (int i = 0; i < PACK; i++) {
            const float d = i < left ? v[k][i] - m.near : 0.0f;
            squares += d * d;
        }
    }
    const float inverse = rstd_of(warp_sum(squares), width, m, eps);
#pragma unroll
    for (int k = 0; k < PACKS; k++) {
        if (k * 32 * PACK >= width) break; // of all lanes
        const int at = (k * 32 + lane_id()) * PACK;
        write(y + at, offset(weight, at), offset(bias, at), width - at, aligned, m, inverse, v[k]);
    }
    if (lane_id() == 0) *mean = m.near, *rstd = inverse;
}

// x, branch and sum (both may be null), y: [rows, width]; weight, bias (may be null): [width]; mean, rstd: [rows].
// `aligned`: all of these start at multiples of 16 bytes, and so do rows.
KERNEL __launch_bounds__(32 * ROWS, PACK == 8 ? 6 : 4)
ENTRY(norm_layer_fwd_warp)(const element *x, const element *branch, const float *weight, const float *bias,
                           element *sum, element *y, float *mean, float *rstd, u64 rows, u32 width, float eps,
                           u32 aligned) {
    const u64 row = u64(blockIdx.x) * ROWS + warp_id();
    if (row >= rows) return;
    const u64 start = row * width;
    auto run = [&](auto packs) {
        warp_row<packs.value>(x + start, branch ? branch + start : nullptr, weight, bias, sum + start, y + start,
                              mean + row, rstd + row, width, eps, aligned);
    };
    over_packs(width, run);
}

// As norm_layer_fwd_warp; block b has row b.
KERNEL __launch_bounds__(32 * WARPS)
ENTRY(norm_layer_fwd_block)(const element *__restrict__ x, const element *__restrict__ branch, const float *weight,
                            const float *bias, element *__restrict__ sum, element *__restrict__ y, float *mean,
                            float *rstd, u32 width, float eps, u32 aligned) {
    __shared__ double wide_part[WARPS];
    __shared__ float part[WARPS];
    const u64 start = u64(blockIdx.x) * width;
    const u32 begin = threadIdx.x * PACK, step = 32 * WARPS * PACK;
    Sum sum_of;
    float v[PACK], squares = 0.0f;
    // The sum is made again rather than read again: its terms are in the cache, which does not keep what is written.
    auto load = [&](u32 at) {
        load_part(x + start + at, width - at, aligned, v);
        if (!branch) return;
        float other[PACK];
        load_part(branch + start + at, width - at, aligned, other);
#pragma unroll
        for (int i = 0; i < PACK; i++) v[i] = rounded(v[i] + other[i]);
    };
    for (u32 at = begin; at < width; at += step) {
        load(at);
#pragma unroll
        for (int i = 0; i < PACK; i++) sum_of.add(v[i]);
    }
    const Mean m = mean_of(block_sum<WARPS>(sum_of.value(), wide_part), width);
    for (u32 at = begin; at < width; at += step) {
        load(at);
#pragma unroll
        for (int i = 0; i < PACK; i++) {
            const float d = at + i < width ? v[i] - m.near : 0.0f;
            squares += d * d;
        }
    }
    const float inverse = rstd_of(block_sum<WARPS>(squares, part), width, m, eps);
    // Warps stay together: a lane may be behind the row's end.
    for (u32 base = warp_id() * 32 * PACK; base < width; base += step) {
        const u32 at = base + lane_id() * PACK;
        load(at);
        if (branch) store_part(sum + start + at, width - at, aligned, v);
        write(y + start + at, offset(weight, at), offset(bias, at), width - at, aligned, m, inverse, v);
    }
    if (threadIdx.x == 0) mean[blockIdx.x] = m.near, rstd[blockIdx.x] = inverse;
}
