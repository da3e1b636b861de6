// Loss and log-sum-exp of each row against all columns. The similarities [R, C] are never in memory: a block makes them
// for 64 rows and 128 columns at a time in registers and keeps a running maximum and sum.
//
// Where there are few tiles of rows the columns are shared out over several blocks, each of which leaves its maximum
// and sum a row; a second kernel puts these together, a warp a row, in an order that depends on R and C alone.

#include "common/element.cuh"
#include "common/reduce.cuh"
#include "ntxent/tile.cuh"

// Part blockIdx.y of the columns for 64 rows. rows: [R, D], columns: [C, D], positive: [R] column numbers or null ->
// part_max, part_sum: [splits, stride], the largest inner product and the sum of e^((product - largest) / temperature);
// positive_product: [R], where the positive is a column that the row sees.
KERNEL __launch_bounds__(THREADS)
    ENTRY(ntxent_fwd_tiles)(const element *rows, const element *columns, const i32 *positive, float *part_max,
                            float *part_sum, float *positive_product, Problem p, int tiles_per_split,
                            int stride) {
    __shared__ __align__(16) float shared[STAGE];
    __shared__ int positives[OWN];
    const int first = blockIdx.x * OWN;
    const float scale = p.inverse * 1.4426950408889634f;
    // Read behind the barriers below. Without columns as positives none matches.
    for (int i = threadIdx.x; i < OWN; i += THREADS)
        positives[i] = positive && first + i < p.rows ? positive[first + i] : -1;
    __syncthreads(); // positives is written
    float max[8], sum[8];
#pragma unroll
    for (int i = 0; i < 8; i++) max[i] = -INF, sum[i] = 0.0f;

    const int begin = int(blockIdx.y) * tiles_per_split * OTHER;
    const int end = min(p.columns, begin + tiles_per_split * OTHER);
    for (int start = begin; start < end; start += OTHER) {
        float s[8][8];
        products(s, shared, rows, first, p.rows, columns, start, p.columns, p.d, p.aligned);
#pragma unroll
        for (int i = 0; i < 8; i++) {
            const int own = own_lane() + 8 * i, row = first + own;
            float top = max[i];
#pragma unroll
            for (int j = 0; j < 8; j++) {
                const int column = start + other_lane() + 16 * j;
                if (column >= p.columns || hidden(p, row, column)) s[i][j] = -INF;
                else if (column == positives[own]) positive_product[row] = s[i][j];
                top = fmaxf(top, s[i][j]);
            }
            const float shift = top == -INF ? 0.0f : top;
            sum[i] *= exp2f((max[i] - shift) * scale);
            max[i] = top;
#pragma unroll
            for (int j = 0; j < 8; j++) sum[i] += exp2f((s[i][j] - shift) * scale);
        }
    }

    // The 16 threads of a row put their sums together.
#pragma unroll
    for (int i = 0; i < 8; i++) {
        float top = max[i];
#pragma unroll
        for (int step = 8; step > 0; step /= 2) top = fmaxf(top, __shfl_xor_sync(ALL_LANES, top, step));
        float total = sum[i] * exp2f((max[i] - (top == -INF ? 0.0f : top)) * scale);
#pragma unroll
        for (int step = 8; step > 0; step /= 2) total += __shfl_xor_sync(ALL_LANES, total, step);
        const int row = first + own_lane() + 8 * i;
        if (other_lane() == 0 && row < p.rows) {
            part_max[u64(blockIdx.y) * stride + row] = top;
            part_sum[u64(blockIdx.y) * stride + row] = total;
        }
    }
}

// loss, lse: [R] from the parts: [splits, stride], stride a multiple of 8, and the positives: column numbers with their
// products: [R], or vectors: [R, D]. A positive that is no column, or one that the row does not see, makes the loss
// NaN.
//
// A warp has 8 rows, whose numbers in a part are one sector: lane 8 i + r reads every fourth part of row r from part i
// on.
KERNEL ENTRY(ntxent_fwd_merge)(const element *rows, const i32 *positive, const element *vectors, const float *part_max,
                               const float *part_sum, const float *positive_product, float *loss, float *lse, Problem p,
                               int splits, int stride) {
    const u64 first = (u64(blockIdx.x) * (blockDim.x / 32) + warp_id()) * 8;
    if (first >= u64(p.rows)) return;
    const u64 row = first + lane_id() % 8;
    const bool inside = row < u64(p.rows);
    const float scale = p.inverse * 1.4426950408889634f;
    float own = NOT_A_NUMBER, top = -INF;
    if (vectors) {
        for (u64 r = first; r < min(first + 8, u64(p.rows)); r++) {
            const float product = inner_product(rows + r * p.d, vectors + r * p.d, p.d);
            if (r == row) own = product;
        }
        top = fmaxf(top, own);
    } else if (inside && is_valid(p, int(row), positive[row])) {
        own = positive_product[row];
    }
    for (int i = lane_id() / 8; i < splits && inside; i += 4) top = fmaxf(top, part_max[u64(i) * stride + row]);
    top = fmaxf(top, __shfl_xor_sync(ALL_LANES, top, 8));
    top = fmaxf(top, __shfl_xor_sync(ALL_LANES, top, 16));
    const float shift = top == -INF ? 0.0f : top;
    float sum = 0.0f;
    for (int i = lane_id() / 8; i < splits && inside; i += 4)
        sum += part_sum[u64(i) * stride + row] * exp2f((part_max[u64(i) * stride + row] - shift) * scale);
    sum += __shfl_xor_sync(ALL_LANES, sum, 8);
    sum += __shfl_xor_sync(ALL_LANES, sum, 16);
    if (vectors) sum += exp2f((own - shift) * scale);
    if (lane_id() >= 8 || !inside) return;
    const float log_sum = logf(sum);
    lse[row] = over_temperature(p, shift) + log_sum;
    loss[row] = over_temperature(p, shift - own) + log_sum;
}
