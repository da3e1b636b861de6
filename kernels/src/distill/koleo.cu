// KoLeo: the distance of each row to its nearest other row, and its gradient. All float32.
//
// nearest and factors: a warp has a row. backward: a thread has one element of a row; its block looks through the nearest
// of all rows for those that name this one, 32 at a time and in order, so that sums have the same bits every time and
// nothing is added atomically.

#include "common/reduce.cuh"

constexpr u32 WARPS = 8, THREADS = 32 * WARPS;

// |x - y + eps|, in every lane of the warp.
__device__ __forceinline__ float distance(const float *x, const float *y, u32 d, float eps) {
    float sum = 0.0f;
    for (u32 c = lane_id(); c < d; c += 32) {
        const float difference = x[c] - y[c] + eps;
        sum += difference * difference;
    }
    return sqrtf(warp_sum(sum));
}

// nearest[i] = the j other than i with the largest similar[i, j], the first of several, and loss[i] = -log(distance + eps);
// similar: [n, n], x: [n, d], loss, nearest: [n]; n is at least 2
KERNEL __launch_bounds__(THREADS) distill_koleo(const float *similar, const float *x, float *loss, i32 *nearest, u32 n,
                                                u32 d, float eps) {
    const u32 i = blockIdx.x * WARPS + warp_id();
    if (i >= n) return;
    float best = __uint_as_float(0xff800000u); // minus infinity
    u32 at = n;
    for (u32 j = lane_id(); j < n; j += 32) {
        const float s = similar[u64(i) * n + j];
        if (j != i && s > best) best = s, at = j;
    }
#pragma unroll
    for (int step = 16; step > 0; step /= 2) {
        const float other = __shfl_xor_sync(ALL_LANES, best, step);
        const u32 there = __shfl_xor_sync(ALL_LANES, at, step);
        if (other > best || (other == best && there < at)) best = other, at = there;
    }
    if (at == n) at = i == 0 ? 1 : 0; // nothing is a number
    const float apart = distance(x + u64(i) * d, x + u64(at) * d, d, eps);
    if (lane_id() == 0) {
        nearest[i] = i32(at);
        loss[i] = -logf(apart + eps);
    }
}

// factors[i] = -dloss[i] / ((distance + eps) distance), NaN for an index outside; dloss, nearest, factors: [n]
KERNEL __launch_bounds__(THREADS) distill_koleo_factors(const float *dloss, const float *x, const i32 *nearest,
                                                        float *factors, u32 n, u32 d, float eps) {
    const u32 i = blockIdx.x * WARPS + warp_id();
    if (i >= n) return;
    const u32 near = u32(nearest[i]);
    const float apart = near < n ? distance(x + u64(i) * d, x + u64(near) * d, d, eps) : __uint_as_float(0x7fffffffu);
    if (lane_id() == 0) factors[i] = -dloss[i] / ((apart + eps) * apart);
}

constexpr u32 COLUMNS = 128; // of a block

// dx[i] = factors[i] (x[i] - x[nearest] + eps) - sum over the k that name i of factors[k] (x[k] - x[i] + eps); dx: [n, d]
KERNEL __launch_bounds__(COLUMNS) distill_koleo_bwd(const float *x, const i32 *nearest, const float *factors, float *dx,
                                                    u32 n, u32 d, float eps) {
    const u32 i = blockIdx.x, c = blockIdx.y * COLUMNS + threadIdx.x;
    const bool inside = c < d;
    const float own = inside ? x[u64(i) * d + c] : 0.0f;
    float sum = 0.0f;
    for (u32 base = 0; base < n; base += 32) {
        const u32 k = base + lane_id();
        const u32 word = k < n ? u32(nearest[k]) : n;
        u32 rows = __ballot_sync(ALL_LANES, word == i || k == i);
        for (; rows; rows &= rows - 1) {
            const u32 lane = __ffs(rows) - 1, row = base + lane, near = __shfl_sync(ALL_LANES, word, lane);
            if (!inside) continue;
            const float factor = factors[row];
            if (row == i) sum += factor * (own - (near < n ? x[u64(near) * d + c] : 0.0f) + eps);
            if (near == i) sum -= factor * (x[u64(row) * d + c] - own + eps);
        }
    }
    if (inside) dx[u64(i) * d + c] = sum;
}
