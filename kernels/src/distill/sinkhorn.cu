// Sinkhorn-Knopp: e = exp(scores / temperature) is scaled by a factor for each row and each column until both have equal
// sums. The scaled matrix is in memory once, at the end; in between there are the factors, and the scores are read again.
//
// Exponentials of a row are relative to its own largest score; what that leaves out, exp((largest - largest of all) /
// temperature), is the factor that the row starts with. So the result is that of the scores less the largest of all, and
// no row vanishes in float32 before it is scaled.
//
// maximum: a block a row. columns: a thread has four columns and adds the rows of a chunk in order, sixteen at a time;
// scaling.cu adds the chunks. rows and last: a block a row; last writes the result too. Blocks of rows from `valid` on do
// nothing but say so.

#include "distill/row.cuh"
#include "distill/scaling.cuh"

// maximum[row] = the row's largest score, minus infinity for padding; scores: [rows, k], maximum: [rows]
KERNEL __launch_bounds__(1024) ENTRY(distill_sinkhorn_maximum)(const element *scores, const i32 *valid, float *maximum,
                                                               u32 k, u32 access) {
    __shared__ float part[MAX_WARPS];
    const u32 row = blockIdx.x;
    float largest = -INF;
    if (row < valid_rows(valid, gridDim.x)) {
        const element *x = scores + u64(row) * k;
        for (u32 at = threadIdx.x * 4; access && at < k; at += blockDim.x * 4) {
            float v[4];
            load_row<4>(x + at, v, access == BY_PACK);
            largest = fmaxf(largest, fmaxf(fmaxf(v[0], v[1]), fmaxf(v[2], v[3])));
        }
        for (u32 at = threadIdx.x; !access && at < k; at += blockDim.x) largest = fmaxf(largest, to_float(x[at]));
    }
    largest = row_max(largest, part);
    if (threadIdx.x == 0) maximum[row] = largest;
}

// A row's exponentials.
struct Row {
    const element *x;
    float top;
    Temperature t;
    bool aligned;
    __device__ __forceinline__ Row(const element *x, float maximum, Temperature t, bool aligned)
        : x(x), top(maximum == -INF ? 0.0f : maximum), t(t), aligned(aligned) {}
    template <int W> __device__ __forceinline__ void exponentials(u32 at, float (&e)[W]) const {
        load_row<W>(x + at, e, aligned);
#pragma unroll
        for (int i = 0; i < W; i++) e[i] = expf(t.under(e[i] - top));
    }
};

constexpr int DEEP = 16; // rows that are added before their sum is; half a warp

template <int W>
__device__ __forceinline__ void columns(const element *scores, const float *maximum, const float *factors,
                                        float *partial, u32 first, u32 last, u32 k, Temperature t, bool aligned) {
    const u32 at = (blockIdx.x * blockDim.x + threadIdx.x) * W;
    const bool inside = at < k;
    float sum[W] = {};
    for (u32 base = first; base < last; base += DEEP) {
        // Half a warp reads the rows' factors, the other half their maxima, each whole sectors.
        const u32 mine = base + lane_id() % DEEP;
        const float of_row = mine < last ? (lane_id() < DEEP ? factors : maximum)[mine] : 0.0f;
        const u32 count = last - base < DEEP ? last - base : DEEP;
        float some[W] = {};
        for (u32 i = 0; i < count; i++) {
            const float factor = __shfl_sync(ALL_LANES, of_row, i), top = __shfl_sync(ALL_LANES, of_row, DEEP + i);
            if (!inside) continue;
            float e[W];
            Row(scores + u64(base + i) * k, top, t, aligned).exponentials<W>(at, e);
#pragma unroll
            for (int j = 0; j < W; j++) some[j] += factor * e[j];
        }
#pragma unroll
        for (int j = 0; j < W; j++) sum[j] += some[j];
    }
    if (inside) store_row<W>(partial + u64(blockIdx.y) * k + at, sum, aligned);
}

// partial[chunk, column] = sum over the rows of the chunk (blockIdx.y, `step` rows) of factors[row] e[row, column];
// scores: [rows, k], maximum, factors: [rows], partial: [chunks, k]
KERNEL __launch_bounds__(128) ENTRY(distill_sinkhorn_columns)(const element *scores, const i32 *valid,
                                                              const float *maximum, const float *factors,
                                                              float *partial, u32 rows, u32 k, u32 step,
                                                              Number temperature, u32 access) {
    const Temperature t(temperature);
    const u32 n = valid_rows(valid, rows), first = blockIdx.y * step, last = first + step < n ? first + step : n;
    if (access)
        columns<4>(scores, maximum, factors, partial, first, last, k, t, access == BY_PACK);
    else
        columns<1>(scores, maximum, factors, partial, first, last, k, t, false);
}

// 1 / sum of e c over a row, in every thread.
template <int W>
__device__ __forceinline__ float row_factor(const Row &row, const float *columns, u32 k, float *part) {
    float sum = 0.0f;
    for (u32 at = threadIdx.x * W; at < k; at += blockDim.x * W) {
        float e[W], c[W];
        row.exponentials<W>(at, e);
        load_row<W>(columns + at, c, row.aligned);
#pragma unroll
        for (int i = 0; i < W; i++) sum += e[i] * c[i];
    }
    return inverse_of(row_sum(sum, part));
}

template <int W>
__device__ __forceinline__ void write(const Row &row, const float *columns, float factor, float *out, u32 k) {
    for (u32 at = threadIdx.x * W; at < k; at += blockDim.x * W) {
        float e[W], c[W];
        row.exponentials<W>(at, e);
        load_row<W>(columns + at, c, row.aligned);
#pragma unroll
        for (int i = 0; i < W; i++) e[i] = e[i] * c[i] * factor;
        store_row<W>(out + at, e, row.aligned);
    }
}

// factors[row] = 1 / sum of e c; scores: [rows, k], columns: [k], maximum, factors: [rows]
KERNEL __launch_bounds__(1024) ENTRY(distill_sinkhorn_rows)(const element *scores, const i32 *valid,
                                                            const float *maximum, const float *columns, float *factors,
                                                            u32 k, Number temperature, u32 access) {
    __shared__ float part[MAX_WARPS];
    if (blockIdx.x >= valid_rows(valid, gridDim.x)) return;
    const Row row(scores + u64(blockIdx.x) * k, maximum[blockIdx.x], Temperature(temperature), access == BY_PACK);
    const float factor = access ? row_factor<4>(row, columns, k, part) : row_factor<1>(row, columns, k, part);
    if (threadIdx.x == 0) factors[blockIdx.x] = factor;
}

// out[row] = e c / sum of e c, zeros for padding; out: [rows, k]
KERNEL __launch_bounds__(1024) ENTRY(distill_sinkhorn_last)(const element *scores, const i32 *valid,
                                                            const float *maximum, const float *columns, float *out,
                                                            u32 k, Number temperature, u32 access) {
    __shared__ float part[MAX_WARPS];
    float *to = out + u64(blockIdx.x) * k;
    if (blockIdx.x >= valid_rows(valid, gridDim.x)) {
        const float zeros[4] = {}, zero[1] = {};
        for (u32 at = threadIdx.x * 4; access && at < k; at += blockDim.x * 4) store_row<4>(to + at, zeros, access == BY_PACK);
        for (u32 at = threadIdx.x; !access && at < k; at += blockDim.x) store_row<1>(to + at, zero, false);
        return;
    }
    const Row row(scores + u64(blockIdx.x) * k, maximum[blockIdx.x], Temperature(temperature), access == BY_PACK);
    if (access)
        write<4>(row, columns, row_factor<4>(row, columns, k, part), to, k);
    else
        write<1>(row, columns, row_factor<1>(row, columns, k, part), to, k);
}
