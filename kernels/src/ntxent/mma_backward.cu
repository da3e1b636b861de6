// Gradients of NT-Xent in bf16 on tensor cores. With G[i][j] = dloss_i (e^(s_ij - lse_i) - [j is i's positive]) /
// temperature
//
//     drows = G columns        dcolumns = G^T rows
//
// A block owns 64 rows (for dcolumns 64 columns) and their gradients, and meets the others OTHER at a time, the next
// ones on the way. It makes the products again, turns them into G in registers, rounded to bf16, and multiplies that
// with the others. Its 8 warps are two halves: both have all own vectors, and each takes half of the others; at the end
// the second gives its sums to the first. Each gradient is one block's alone: no atomics, no partial results in memory,
// the same bits every time.
//
// A row whose positive is no column, or one that it must not see, gets the gradient NaN and adds nothing to dcolumns.

#define VECTOR DIM
#include "common/vector_tiles.cuh"
#include "ntxent/problem.cuh"

constexpr int WARPS = 8;
constexpr int OWN = 16 * WARPS / 2;
constexpr int OTHER = 16384 / DIM;
static_assert(OTHER <= 32 * WARPS, "a thread has what belongs to one of the others");
constexpr u32 OTHER_BYTES = OTHER * ROW_BYTES;
constexpr int NONE = -1, INVALID = -2;

// What G needs of a row.
struct Row {
    float lse, coefficient; // lse in powers of two
    int positive;           // a column, NONE, or INVALID

    // Of a row that adds nothing every weight is 0.
    __device__ __forceinline__ Row(const Problem &p, int row, const i32 *positives, const float *dloss,
                                   const float *all_lse) {
        lse = INF, coefficient = 0.0f, positive = NONE;
        if (row >= p.rows) return;
        if (positives) {
            const int column = positives[row];
            positive = is_valid(p, row, column) ? column : INVALID;
        }
        if (positive == INVALID) return;
        lse = all_lse[row] * LOG2_E;
        coefficient = dloss[row] * p.inverse;
    }
};

// out: [own_count, D], the gradient of `own` from `other`; own are the rows if BY_ROW, else the columns.
// vectors: [R, D] and vector_weights: [R] are the positives' share of drows, or null.
template <bool BY_ROW>
__device__ __forceinline__ void gradient(const element *own_vectors, int own_count, const element *others,
                                         int other_count, const i32 *positives, const float *dloss, const float *lse,
                                         element *out, const element *vectors, const float *vector_weights,
                                         const Problem &p) {
    extern __shared__ __align__(512) uint4 shared[];
    __shared__ __align__(8) float other_lse[2][OTHER], other_coefficient[2][OTHER];
    __shared__ int other_positive[2][OTHER];
    const u32 own_tile = shared_address(shared);  // (OWN, DIM)
    const u32 tiles = own_tile + OWN * ROW_BYTES; // (2, OTHER, DIM)
    const int first = blockIdx.x * OWN, own_row = warp_id() % 4 * 16, half = warp_id() / 4;
    const float scale = p.inverse * LOG2_E;

    const auto copy_tile = [&](int start, u32 stage) {
        if (start >= other_count) return;
        copy_rows(tiles + stage * OTHER_BYTES, others, p.d, start, OTHER, other_count, p.d, threadIdx.x, 32 * WARPS);
        if constexpr (!BY_ROW) {
            const int i = threadIdx.x;
            if (i >= OTHER) return;
            const Row row(p, start + i, positives, dloss, lse);
            other_lse[stage][i] = row.lse, other_coefficient[stage][i] = row.coefficient;
            other_positive[stage][i] = row.positive;
        }
    };
    copy_rows(own_tile, own_vectors, p.d, first, OWN, own_count, p.d, threadIdx.x, 32 * WARPS);
    copy_tile(0, 0);
    copy_commit();
    // Rows g and g + 8 of the warp's 16, if the own vectors are rows.
    const int lane_row = first + own_row + own_group();
    const Row upper(p, BY_ROW ? lane_row : p.rows, positives, dloss, lse);
    const Row lower(p, BY_ROW ? lane_row + 8 : p.rows, positives, dloss, lse);
    copy_wait<0>();
    __syncthreads(); // the own vectors are there, and the first tile
    Own<(DIM <= 128)> own;
    own.load(own_tile, own_row);

    Sums sums = {};
    u32 stage = 0;
    for (int start = 0; start < other_count; start += OTHER, stage ^= 1) {
        copy_wait<0>();
        __syncthreads(); // this tile is there, and all warps have read the one before, where the next one goes
        copy_tile(start + OTHER, stage ^ 1);
        copy_commit();
        Tile tile(tiles + stage * OTHER_BYTES);
        tile.keep();
        for (int at = half * OTHER / 2; at < (half + 1) * OTHER / 2 && start + at < other_count; at += 16) {
            float s[2][4];
            own.inner(tile, at, &s, 1);
            // Few tiles have a column that a row does not see, or its positive. Among 16 x 16, 31 differences are.
            const int other = start + at, own_first = first + own_row;
            const int difference = BY_ROW ? other - own_first : own_first - other; // of the first column and row
            bool special = other + 16 > other_count || u32(p.self_offset) - (difference - 15) < 31;
            if (BY_ROW) special |= u32(upper.positive - other) < 16 || u32(lower.positive - other) < 16;
            else special |= u32(other_positive[stage][at + lane_id() % 16] - own_first) < 16;
            float2 lses[2] = {}, coefficients[2] = {};
            if constexpr (!BY_ROW) {
#pragma unroll
                for (int h = 0; h < 2; h++) {
                    const int pair = at + 8 * h + own_pair();
                    lses[h] = *reinterpret_cast<const float2 *>(&other_lse[stage][pair]);
                    coefficients[h] = *reinterpret_cast<const float2 *>(&other_coefficient[stage][pair]);
                }
            }
            over_tile([&](int h, int e) {
                const float row_lse = BY_ROW ? (e < 2 ? upper.lse : lower.lse) : (e % 2 ? lses[h].y : lses[h].x);
                s[h][e] = exp2_fast(fmaf(s[h][e], scale, -row_lse));
            });
            if (__any_sync(ALL_LANES, special))
                over_tile([&](int h, int e) {
                    const int theirs = at + 8 * h + own_pair() + e % 2;
                    const int mine = lane_row + (e < 2 ? 0 : 8);
                    const int positive = BY_ROW ? (e < 2 ? upper.positive : lower.positive)
                                                : other_positive[stage][theirs];
                    const int row = BY_ROW ? mine : start + theirs, column = BY_ROW ? start + theirs : mine;
                    if (column == positive) s[h][e] -= 1.0f;
                    if (start + theirs >= other_count || hidden(p, row, column)) s[h][e] = 0.0f;
                });
            over_tile([&](int h, int e) {
                s[h][e] *= BY_ROW ? (e < 2 ? upper.coefficient : lower.coefficient)
                                  : (e % 2 ? coefficients[h].y : coefficients[h].x);
            });
            u32 weights[4];
            to_operand(s, weights);
            weighted_sum(weights, tile, at, sums);
        }
    }

    copy_wait<0>();
    __syncthreads(); // all warps have read the last tile: the second half's sums take its place
    float4 *halves = reinterpret_cast<float4 *>(shared + OWN * PACKS) + warp_id() % 4 * 2 * STEPS * 32 + lane_id();
    if (half == 1) {
#pragma unroll
        for (int n = 0; n < 2 * STEPS; n++) halves[n * 32] = make_float4(sums[n][0], sums[n][1], sums[n][2], sums[n][3]);
    }
    __syncthreads(); // the second half's sums are written
    if (half == 1) return;
#pragma unroll
    for (int n = 0; n < 2 * STEPS; n++) {
        const float4 more = halves[n * 32];
        sums[n][0] += more.x, sums[n][1] += more.y, sums[n][2] += more.z, sums[n][3] += more.w;
    }
    float factor[2] = {1.0f, 1.0f};
    if (BY_ROW) {
        if (upper.positive == INVALID) factor[0] = NOT_A_NUMBER;
        if (lower.positive == INVALID) factor[1] = NOT_A_NUMBER;
    }
    if (BY_ROW && vectors) {
#pragma unroll
        for (int side = 0; side < 2; side++) {
            const int row = lane_row + 8 * side;
            if (row >= p.rows) continue;
            const float weight = vector_weights[row];
#pragma unroll
            for (int n = 0; n < 2 * STEPS; n++) {
                const int column = 8 * n + own_pair();
                if (column >= p.d) continue;
                const u32 pair = *reinterpret_cast<const u32 *>(vectors + u64(row) * p.d + column);
                sums[n][2 * side] = fmaf(weight, __uint_as_float(pair << 16), sums[n][2 * side]);
                sums[n][2 * side + 1] = fmaf(weight, __uint_as_float(pair & 0xffff0000u), sums[n][2 * side + 1]);
            }
        }
    }
    store_sums(sums, factor, out, p.d, first + own_row, own_count, p.d);
}

#define PASTE_DIM(name, dim) ENTRY(name##_d##dim)
#define WITH_DIM(name, dim) PASTE_DIM(name, dim)

// drows: [R, D]. positives: [R] or null; vectors: [R, D] with their weights: [R], or null.
KERNEL __launch_bounds__(32 * WARPS)
    WITH_DIM(ntxent_bwd_mma_rows, DIM)(const element *rows, const element *columns, const i32 *positives,
                                       const float *dloss, const float *lse, const element *vectors,
                                       const float *vector_weights, element *drows, Problem p) {
    gradient<true>(rows, p.rows, columns, p.columns, positives, dloss, lse, drows, vectors, vector_weights, p);
}

// dcolumns: [C, D].
KERNEL __launch_bounds__(32 * WARPS)
    WITH_DIM(ntxent_bwd_mma_columns, DIM)(const element *rows, const element *columns, const i32 *positives,
                                          const float *dloss, const float *lse, element *dcolumns, Problem p) {
    gradient<false>(columns, p.columns, rows, p.rows, positives, dloss, lse, dcolumns, nullptr, nullptr, p);
}
