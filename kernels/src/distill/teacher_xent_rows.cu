// Puts the sums of teacher_xent.cu together, row by row: a warp has a row, each lane every 32nd part of it.

#include "common/reduce.cuh"

#define INF __uint_as_float(0x7f800000u)
#define NOT_A_NUMBER __uint_as_float(0x7fffffffu)

__device__ __forceinline__ float times(float a, float b) { return a == 0.0f ? 0.0f : a * b; }

// What has been seen of a row. `shift` below is max, or 0 while that is minus infinity.
struct Part {
    float max = -INF;
    float rest = 0.0f;    // sum of e^(x - shift) but for one of the largest
    float product = 0.0f; // sum of q (x - shift)
    float weight = 0.0f;  // sum of q

    __device__ __forceinline__ float shift() const { return max == -INF ? 0.0f : max; }

    // Relative to `top`, which is no less than max; its own term is in rest then.
    __device__ __forceinline__ void rebase(float top) {
        const float moved = shift() - (top == -INF ? 0.0f : top), own = max == -INF ? 0.0f : 1.0f;
        rest = times(rest + own, expf(moved));
        product += times(weight, moved);
        max = top;
    }

    __device__ __forceinline__ void add(float4 next) {
        Part other;
        other.max = next.x, other.rest = next.y, other.product = next.z, other.weight = next.w;
        if (other.max > max)
            rebase(other.max);
        else
            other.rebase(max);
        rest += other.rest, product += other.product, weight += other.weight;
    }
};

// The parts of all lanes together, in every lane.
__device__ __forceinline__ Part warp_merge(Part p) {
    const float top = warp_max(p.max);
    const u32 holders = __ballot_sync(ALL_LANES, p.max == top);
    if (lane_id() != __ffs(holders) - 1) p.rebase(top);
    p.rest = warp_sum(p.rest), p.product = warp_sum(p.product), p.weight = warp_sum(p.weight);
    return p;
}

// loss: [m] and rows: [m] of (largest, weight / sum of e^(x - largest)) from partial: [m, chunks]. A row of nothing but minus
// infinity costs nothing and is (minus infinity, 0).
KERNEL __launch_bounds__(256) distill_xent_rows(const float4 *partial, float *loss, float2 *rows, u32 m, u32 chunks) {
    const u32 row = blockIdx.x * (blockDim.x / 32) + warp_id();
    if (row >= m) return;
    Part p;
    for (u32 chunk = lane_id(); chunk < chunks; chunk += 32) p.add(partial[u64(row) * chunks + chunk]);
    p = warp_merge(p);
    if (lane_id() != 0) return;
    const bool is_void = p.max == -INF && p.rest == 0.0f;
    const float log_sum = p.max == INF ? NOT_A_NUMBER : log1pf(p.rest);
    loss[row] = is_void ? 0.0f : p.weight * log_sum - p.product;
    rows[row] = is_void ? make_float2(-INF, 0.0f)
                        : make_float2(p.shift(), p.max == INF ? NOT_A_NUMBER : p.weight / (1.0f + p.rest));
}
