// What a loss needs of a teacher's logits [rows, k] to make its softmax((logits - center) / temperature) again, and what is
// watched of it. The probabilities are never in memory.
//
// distill_teacher_rows: a block a row; each thread takes packs a block's width apart, one exchange puts its sums together.
// Two numbers are kept: with shift and factor, p = e^((logit - center) / temperature - shift) factor.
//
// distill_teacher_columns: the second read, from the cache where the logits fit. A warp has 32 packs of columns and every
// eighth row; the eight warps of a block add what they have in order. So the mean of the logits, which moves the centre, and
// the mean of the probabilities are of one read, and there is no partial sum in memory.

#include "distill/sums.cuh"
#include "distill/targets.cuh"

template <int W>
__device__ __forceinline__ Sums row_sums(const element *x, const float *center, u32 k, Temperature t) {
    Sums s;
    for (u32 at = threadIdx.x * W; at < k; at += blockDim.x * W) {
        float c[W], d[W];
        load_center<W>(center, at, c);
        load_scaled<W>(x + at, c, t, d);
        add<W>(s, d);
    }
    return block_merge(s);
}

// rows: [rows] of (shift, factor) and entropy: [rows], a block each, from x: [rows, k] and center: [k] or null
KERNEL __launch_bounds__(1024) ENTRY(distill_teacher_rows)(const element *x, const float *center, float2 *rows,
                                                           float *entropy, u32 k, Number temperature, u32 access) {
    x += u64(blockIdx.x) * k;
    const Temperature t(temperature);
    const Sums s = access ? row_sums<PACK>(x, center, k, t) : row_sums<1>(x, center, k, t);
    if (threadIdx.x != 0) return;
    // Nothing but minus infinity was seen: no probabilities. A largest of plus infinity has none either.
    const bool is_void = s.max == -INF && s.rest == 0.0f;
    const float sum = s.max == -INF ? s.rest : 1.0f + s.rest;
    const float factor = is_void ? 0.0f : (s.max == INF ? NOT_A_NUMBER : 1.0f / sum);
    rows[blockIdx.x] = make_float2(s.shift(), factor);
    entropy[blockIdx.x] = is_void ? 0.0f : (factor > 0.0f ? log1pf(s.rest) - s.product * factor : NOT_A_NUMBER);
}

constexpr int SLICES = 8; // warps of a block, each with every eighth row

constexpr int STAGED = 32 * SLICES; // rows whose numbers are in shared memory at a time

template <int W> struct ColumnSums {
    float mean[W], usage[W];
};

// The sums of one warp's rows, in order. The logits of rows without a share are not read.
template <int W>
__device__ __forceinline__ ColumnSums<W> column_sums(const element *x, const float *center, const float2 *rows,
                                                     const float *share, float even, u32 at, u32 n, u32 k,
                                                     Temperature t) {
    __shared__ float4 numbers[STAGED];
    ColumnSums<W> sum = {};
    // Lanes beyond the columns go through the last pack, so that a warp stays together; nobody asks for their sums.
    at = at < k ? at : k - W;
    float c[W];
    load_center<W>(center, at, c);
    for (u32 base = 0; base < n; base += STAGED) {
        __syncthreads(); // the numbers of earlier rows have been read
        if (const u32 mine = base + threadIdx.x; mine < n) {
            const float weight = share ? share[mine] : even;
            const float2 row = weight == 0.0f ? float2{} : rows[mine];
            numbers[threadIdx.x] = make_float4(weight, row.x, weight * row.y, 0.0f);
        }
        __syncthreads(); // those of these rows are there
        const u32 count = n - base < STAGED ? n - base : STAGED;
#pragma unroll(W == 1 ? 1 : 4)
        for (u32 i = warp_id(); i < count; i += SLICES) {
            const float4 row = numbers[i]; // weight, shift, weight times factor
            float v[W] = {};
            if (row.x != 0.0f) load_logits<W>(x + u64(base + i) * k + at, v);
#pragma unroll
            for (int j = 0; j < W; j++) {
                sum.mean[j] += row.x * v[j];
                sum.usage[j] += row.z * expf(t.under(v[j] - c[j]) - row.y);
            }
        }
    }
    return sum;
}

template <int W>
__device__ __forceinline__ void columns(const element *x, const float *center, const float2 *rows, const float *share,
                                        float even, float *mean, float *usage, u32 n, u32 k, Temperature t) {
    __shared__ float part[2][SLICES][W][32];
    const u32 at = (blockIdx.x * 32 + lane_id()) * W;
    const ColumnSums<W> sum = column_sums<W>(x, center, rows, share, even, at, n, k, t);
#pragma unroll
    for (int j = 0; j < W; j++) {
        part[0][warp_id()][j][lane_id()] = sum.mean[j];
        part[1][warp_id()][j][lane_id()] = sum.usage[j];
    }
    __syncthreads(); // part is written
    const int which = warp_id();
    if (which > 1 || at >= k) return;
    float total[W] = {};
    for (int slice = 0; slice < SLICES; slice++)
#pragma unroll
        for (int j = 0; j < W; j++) total[j] += part[which][slice][j][lane_id()];
    float *to = (which ? usage : mean) + at;
    if constexpr (W == 1)
        *to = total[0];
    else {
#pragma unroll
        for (int half = 0; half < W; half += 4) {
            const float four[4] = {total[half], total[half + 1], total[half + 2], total[half + 3]};
            store_pack_global(to + half, four);
        }
    }
}

// mean, usage: [k], the means of logits and of probabilities over x: [n, k] with its rows: [n]. Each row counts share[row],
// or where that is null `even`.
KERNEL __launch_bounds__(32 * SLICES) ENTRY(distill_teacher_columns)(const element *x, const float *center,
                                                                     const float2 *rows, const float *share, float even,
                                                                     float *mean, float *usage, u32 n, u32 k,
                                                                     Number temperature, u32 access) {
    const Temperature t(temperature);
    if (access)
        columns<PACK>(x, center, rows, share, even, mean, usage, n, k, t);
    else
        columns<1>(x, center, rows, share, even, mean, usage, n, k, t);
}
