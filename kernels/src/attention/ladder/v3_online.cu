// Step 3: one kernel, and no scores in memory. A thread has a query and its result in registers; a block of 64 streams
// keys and values through shared memory, 32 at a time. The largest score so far, and the sums relative to it, are
// corrected when a larger one comes (Milakov and Gimelshein 2018).

#include "attention/problem.cuh"

constexpr int OWN = 64, TILE = 32;

// qkv: [B, T, 3, H, D], D at most HEAD; out: [B, T, H, D], lse: [B, H, T]; p.tiles: of 64 queries in T
KERNEL ladder_v3(const element *qkv, const i32 *valid, element *out, float *lse, Problem p) {
    __shared__ __align__(16) float key[TILE][HEAD], value[TILE][HEAD];
    const Place at = place(OWN, p);
    const u32 count = keys_of(valid, at.sample, p).count, t = at.first + threadIdx.x;
    float query[HEAD], sum[HEAD], largest = -INFINITE, total = 0.0f;
#pragma unroll
    for (int d = 0; d < HEAD; d++) {
        const bool inside = t < p.tokens && d < p.size;
        query[d] = inside ? to_float(part_of(qkv, 0, at, p)[t * token_stride(p) + d]) : 0.0f, sum[d] = 0.0f;
    }
    for (u32 first = 0; first < count; first += TILE) {
        __syncthreads(); // the tile before is read
        for (u32 i = threadIdx.x; i < TILE * HEAD; i += OWN) {
            const u32 s = i / HEAD, d = i % HEAD;
            const bool inside = first + s < count && d < p.size;
            const u64 from = (first + s) * token_stride(p) + d;
            key[s][d] = inside ? to_float(part_of(qkv, 1, at, p)[from]) : 0.0f;
            value[s][d] = inside ? to_float(part_of(qkv, 2, at, p)[from]) : 0.0f;
        }
        __syncthreads(); // this one is there
        for (u32 s = 0; s < TILE && first + s < count; s++) {
            float score = 0.0f;
#pragma unroll
            for (int d = 0; d < HEAD; d++) score = fmaf(query[d], key[s][d], score);
            score *= p.scale;
            if (score > largest) {
                const float factor = expf(largest - score);
                total *= factor, largest = score;
#pragma unroll
                for (int d = 0; d < HEAD; d++) sum[d] *= factor;
            }
            const float weight = expf(score - (largest == -INFINITE ? 0.0f : largest));
            total += weight;
#pragma unroll
            for (int d = 0; d < HEAD; d++) sum[d] = fmaf(weight, value[s][d], sum[d]);
        }
    }
    if (t >= p.tokens) return;
    lse[at.pair * p.tokens + t] = total == 0.0f ? -INFINITE : largest + logf(total);
#pragma unroll
    for (int d = 0; d < HEAD; d++)
        if (d < p.size) from_float(total == 0.0f ? 0.0f : sum[d] / total, rows_of(out, at, p)[t * row_stride(p) + d]);
}
