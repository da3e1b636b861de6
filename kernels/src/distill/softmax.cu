// A teacher's targets: softmax((logits - center) / temperature) of each row, and the row's entropy.
//
// A block has a row. Each thread takes four neighbouring logits (16 bytes of float32, 8 of bfloat16, so that the float32
// probabilities are whole sectors too), a block's width apart, and keeps sums relative to the largest that it has seen;
// one exchange puts them together, in an order that depends on the number of columns alone. Then the row is read again,
// from the cache, and its probabilities are written. Nothing else is in memory.

#include "distill/sums.cuh"

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
