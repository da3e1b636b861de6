// The factors of Sinkhorn-Knopp that are made of few numbers: those that rows start with, and those of columns. See
// sinkhorn.cu.

#include "distill/row.cuh"
#include "distill/scaling.cuh"

// factors[row] = exp((maximum[row] - largest of all) / temperature), 0 for padding, by one block; maximum, factors: [rows]
KERNEL __launch_bounds__(1024) distill_sinkhorn_start(const float *maximum, const i32 *valid, float *factors, u32 rows,
                                                      Number temperature) {
    __shared__ float part[MAX_WARPS];
    const Temperature t(temperature);
    const u32 n = valid_rows(valid, rows);
    float largest = -INF;
    for (u32 row = threadIdx.x; row < n; row += blockDim.x) largest = fmaxf(largest, maximum[row]);
    largest = row_max(largest, part);
    for (u32 row = threadIdx.x; row < rows; row += blockDim.x) {
        const float own = row < n ? maximum[row] : 0.0f;
        const float difference = own == largest ? 0.0f : own - largest; // both may be infinite
        factors[row] = row < n ? expf(t.under(difference)) : 0.0f;
    }
}

// factors[column] = (rows / k) / sum over chunks of partial[chunk, column]: columns get what rows of sum 1 leave them, else
// factors would grow by rows / k an iteration. partial: [chunks, k], factors: [k]
KERNEL distill_sinkhorn_column_factors(const float *partial, const i32 *valid, float *factors, u32 chunks, u32 rows,
                                       u32 k) {
    const u32 column = blockIdx.x * blockDim.x + threadIdx.x;
    if (column >= k) return;
    float sum = 0.0f;
    for (u32 chunk = 0; chunk < chunks; chunk++) sum += partial[u64(chunk) * k + column];
    factors[column] = inverse_of(sum) * (float(valid_rows(valid, rows)) / float(k));
}
