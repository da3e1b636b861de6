// A teacher's targets: softmax((logits - center) / temperature) of each row, and the row's entropy.
//
// A block has a row. Each thread takes four neighbouring logits (16 bytes of float32, 8 of bfloat16, so that the float32
// probabilities are whole sectors too), a block's width apart, and keeps sums relative to the largest that it has seen;
// one exchange puts them together, in an order that depends on the number of columns alone. Then the row is read again,
// from the cache, and its probabilities are written. Nothing else is in memory.

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

// d of W logits; center: [k] or null
template <int W>
__device__ __forceinline__ void scaled(const element *x, const float *center, u32 at, Temperature temperature,
                                       bool aligned, float (&d)[W]) {
    load_row<W>(x + at, d, aligned);
    if (center) {
        float c[W];
        load_row<W>(center + at, c, aligned);
#pragma unroll
        for (int i = 0; i < W; i++) d[i] -= c[i];
    }
#pragma unroll
    for (int i = 0; i < W; i++) d[i] = temperature.under(d[i]);
}

template <int W>
__device__ __forceinline__ void softmax(const element *x, const float *center, float *p, float *entropy, u32 k,
                                        Temperature temperature, bool aligned) {
    Sums s;
    for (u32 at = threadIdx.x * W; at < k; at += blockDim.x * W) {
        float d[W];
        scaled<W>(x, center, at, temperature, aligned, d);
        add<W>(s, d);
    }
    s = block_merge(s);
    // Nothing but minus infinity was seen: no probabilities. A largest of plus infinity has none either.
    const bool is_void = s.max == -INF && s.rest == 0.0f;
    const float sum = s.max == -INF ? s.rest : 1.0f + s.rest;
    const float factor = is_void ? 0.0f : (s.max == INF ? NOT_A_NUMBER : 1.0f / sum), shift = s.shift();
    if (threadIdx.x == 0) *entropy = is_void ? 0.0f : (factor > 0.0f ? log1pf(s.rest) - s.product * factor : NOT_A_NUMBER);
    for (u32 at = threadIdx.x * W; at < k; at += blockDim.x * W) {
        float d[W];
        scaled<W>(x, center, at, temperature, aligned, d);
#pragma unroll
        for (int i = 0; i < W; i++) d[i] = expf(d[i] - shift) * factor;
        store_row<W>(p + at, d, aligned);
    }
}

// p: [rows, k] and entropy: [rows], a block each, from x: [rows, k] and center: [k] or null
KERNEL __launch_bounds__(1024) ENTRY(distill_softmax)(const element *x, const float *center, float *p, float *entropy,
                                                      u32 k, Number temperature, u32 access) {
    const u64 start = u64(blockIdx.x) * k;
    const Temperature t(temperature);
    if (access)
        softmax<4>(x + start, center, p + start, entropy + blockIdx.x, k, t, access == BY_PACK);
    else
        softmax<1>(x + start, center, p + start, entropy + blockIdx.x, k, t, false);
}
