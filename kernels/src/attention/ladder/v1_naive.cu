// Step 1: attention as it is written down. All scores [B, H, T, T] are in device memory; three kernels make, normalise
// and use them, and every thread makes one number from what it reads itself.

#include "attention/problem.cuh"

__device__ __forceinline__ u64 thread_number() { return u64(blockIdx.x) * blockDim.x + threadIdx.x; }

// qkv: [B, T, 3, H, D] -> scores: [B, H, T, T], minus infinity for keys that are not seen. A thread a score.
KERNEL ladder_v1_scores(const element *qkv, const i32 *valid, float *scores, Problem p, u64 count) {
    const u64 i = thread_number();
    if (i >= count) return;
    const u32 s = i % p.tokens, t = i / p.tokens % p.tokens;
    const Place at = place_of(i / p.tokens / p.tokens, p);
    const element *query = part_of(qkv, 0, at, p) + t * token_stride(p);
    const element *key = part_of(qkv, 1, at, p) + s * token_stride(p);
    float sum = 0.0f;
    for (u32 d = 0; d < p.size; d++) sum = fmaf(to_float(query[d]), to_float(key[d]), sum);
    scores[i] = s < keys_of(valid, at.sample, p).count ? sum * p.scale : -INFINITE;
}

// scores: [count, T] become weights; lse: [count]. A thread a row.
KERNEL ladder_v1_softmax(float *scores, float *lse, Problem p, u64 count) {
    const u64 row = thread_number();
    if (row >= count) return;
    scores += row * p.tokens;
    float largest = -INFINITE, total = 0.0f;
    for (u32 s = 0; s < p.tokens; s++) largest = fmaxf(largest, scores[s]);
    const float shift = largest == -INFINITE ? 0.0f : largest;
    for (u32 s = 0; s < p.tokens; s++) total += expf(scores[s] - shift);
    for (u32 s = 0; s < p.tokens; s++) scores[s] = total == 0.0f ? 0.0f : expf(scores[s] - shift) / total;
    lse[row] = total == 0.0f ? -INFINITE : largest + logf(total);
}

// out: [B, T, H, D] from the weights. A thread an element.
KERNEL ladder_v1_sum(const element *qkv, const i32 *valid, const float *weights, element *out, Problem p, u64 count) {
    const u64 i = thread_number();
    if (i >= count) return;
    const u32 d = i % p.size, t = i / p.size % p.tokens;
    const Place at = place_of(i / p.size / p.tokens, p);
    const element *value = part_of(qkv, 2, at, p) + d;
    const float *row = weights + (at.pair * p.tokens + t) * p.tokens;
    float sum = 0.0f;
    for (u32 s = 0; s < keys_of(valid, at.sample, p).count; s++)
        sum = fmaf(row[s], to_float(value[s * token_stride(p)]), sum);
    from_float(sum, rows_of(out, at, p)[t * row_stride(p) + d]);
}
