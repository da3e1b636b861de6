// Sums over a row of scaled logits, from which its softmax and the entropy of that follow, in one read.
#pragma once

#include "distill/row.cuh"

// What has been seen of a row of d = (logit - center) / temperature. `shift` below is max, or 0 while that is minus
// infinity.
struct Sums {
    float max = -INF;     // the largest d; NaN is passed over here and shows in rest
    float rest = 0.0f;    // sum of e^(d - shift) but for one of the largest: keeps small entropies accurate
    float product = 0.0f; // sum of e^(d - shift) (d - shift), where e^(d - shift) = 0 adds nothing

    __device__ __forceinline__ float shift() const { return max == -INF ? 0.0f : max; }

    // Relative to `top`, which is no less than max; its own term is in rest then.
    __device__ __forceinline__ void rebase(float top) {
        const float moved = shift() - (top == -INF ? 0.0f : top);
        const float own = max == -INF ? 0.0f : 1.0f, factor = expf(moved), all = rest + own;
        max = top;
        if (all == 0.0f) return;
        product = factor == 0.0f ? 0.0f : factor * (product + all * moved);
        rest = all * factor;
    }
};

template <int W> __device__ __forceinline__ void add(Sums &s, const float (&d)[W]) {
    float top = d[0];
#pragma unroll
    for (int i = 1; i < W; i++) top = fmaxf(top, d[i]);
    bool larger = top > s.max;
    if (larger) s.rebase(top);
    const float shift = s.shift();
#pragma unroll
    for (int i = 0; i < W; i++) {
        const bool own = larger && d[i] == top;
        if (own) {
            larger = false;
            continue;
        }
        const float difference = d[i] - shift, e = expf(difference);
        s.rest += e;
        s.product += e == 0.0f ? 0.0f : e * difference;
    }
}

// The sums of all lanes together, in every lane.
__device__ __forceinline__ Sums warp_merge(Sums s) {
    const float top = warp_max(s.max);
    const u32 holders = __ballot_sync(ALL_LANES, s.max == top);
    if (lane_id() != __ffs(holders) - 1) s.rebase(top);
    s.rest = warp_sum(s.rest);
    s.product = warp_sum(s.product);
    return s;
}

// The sums of the block together, in every thread. Once in a kernel.
__device__ __forceinline__ Sums block_merge(Sums s) {
    __shared__ float part[3][MAX_WARPS];
    s = warp_merge(s);
    if (lane_id() == 0) {
        const int w = warp_id();
        part[0][w] = s.max, part[1][w] = s.rest, part[2][w] = s.product;
    }
    __syncthreads(); // part is written
    Sums other;
    if (const int w = lane_id(); w < int(blockDim.x / 32))
        other.max = part[0][w], other.rest = part[1][w], other.product = part[2][w];
    return warp_merge(other);
}
