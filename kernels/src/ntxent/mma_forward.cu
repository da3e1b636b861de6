// Forward of NT-Xent in bf16 on tensor cores: part blockIdx.y of the columns for OWN rows. As ntxent_fwd_tiles of
// forward.cu, whose second kernel puts the parts together: a sum of e^((product - reference) / temperature) a row, and
// the reference.
//
// A warp keeps 16 or 32 rows in registers, the columns stream through shared memory, 64 at a time and the next ones on
// the way.
//
// The reference of a row is a guess first, its own squared length: of vectors of one length no product is larger, so
// there is no maximum to find, and where views agree it is near the largest. Whether the guess was good shows in the
// sums: nothing overflowed, and what underflowed does not count beside them. If one was not, the block goes over its
// columns again with a running maximum.

#define VECTOR DIM
#include "common/vector_tiles.cuh"
#include "ntxent/problem.cuh"
#include "ntxent/stream.cuh"

constexpr int WARPS = 4;
constexpr int PARTS = DIM > 128 ? 1 : 2;   // of 16 rows that a warp has
constexpr bool KEPT = DIM <= 128;          // whether a warp has its rows in registers
constexpr int OWN = 16 * PARTS * WARPS;    // rows of a block
constexpr int OTHER = 64;                  // columns met at a time
constexpr int GROUPS = OTHER / 16;
constexpr u32 OTHER_BYTES = OTHER * ROW_BYTES;
// Of good sums. What is lost to underflow is below the least number, 2^-126, a term.
constexpr float LEAST = 8.6736174e-19f, MOST = 1.3292280e36f; // 2^-60, 2^120

// What a lane has of its rows: 16 part + g and 8 further.
struct Rows {
    float reference[PARTS][2], sum[PARTS][2];
    int row[PARTS][2], positive[PARTS][2]; // a column that the row sees, or -1
};

// f(part, half) for each row that a lane has.
template <typename F> __device__ __forceinline__ void over_rows(F f) {
#pragma unroll
    for (int part = 0; part < PARTS; part++)
#pragma unroll
        for (int half = 0; half < 2; half++) f(part, half);
}

// Products of the warp's rows with the tile's 64 columns.
struct Products {
    float s[PARTS][GROUPS][2][4];

    // Step by step where the rows are loaded again for each, else column by column.
    __device__ __forceinline__ void make(const Own<KEPT> (&own)[PARTS], const Tile &columns) {
        constexpr int TOGETHER = KEPT ? 1 : GROUPS;
        over([](int, int, int, float &s) { s = 0.0f; });
#pragma unroll
        for (int first = 0; first < GROUPS; first += TOGETHER)
#pragma unroll
            for (int step = 0; step < STEPS; step++) {
                u32 a[PARTS][4];
#pragma unroll
                for (int part = 0; part < PARTS; part++) own[part].step(step, a[part]);
#pragma unroll
                for (int j = first; j < first + TOGETHER; j++) {
                    u32 b[4];
                    load_others(columns, 16 * j, step, b);
#pragma unroll
                    for (int part = 0; part < PARTS; part++)
                        multiply_halves(s[part][j][0], s[part][j][1], a[part], b);
                }
            }
    }
    // f(part, half, column, s) for each product that a lane has; the column's number in the tile is own_pair() more.
    template <typename F> __device__ __forceinline__ void over(F f) {
#pragma unroll
        for (int part = 0; part < PARTS; part++)
#pragma unroll
            for (int j = 0; j < GROUPS; j++)
#pragma unroll
                for (int h = 0; h < 2; h++)
#pragma unroll
                    for (int e = 0; e < 4; e++) f(part, e / 2, 16 * j + 8 * h + e % 2, s[part][j][h][e]);
    }

    // Columns that a row does not see become minus infinity, and a positive's product goes to `positive_product`. The
    // tile's first column is `start`.
    __device__ __forceinline__ void look(const Rows &rows, int start, float *positive_product, const Problem &p) {
        const int first = start + own_pair(), end = p.columns - first;
        int hidden_at[PARTS][2], positive_at[PARTS][2];
        float found[PARTS][2] = {};
        over_rows([&](int part, int half) {
            hidden_at[part][half] = u32(p.self_offset) + rows.row[part][half] - first;
            positive_at[part][half] = rows.positive[part][half] - first;
        });
        over([&](int part, int half, int at, float &s) {
            if (at == positive_at[part][half]) found[part][half] = s;
            if (at == hidden_at[part][half] || at >= end) s = -INF;
        });
        over_rows([&](int part, int half) {
            // Of the row's four lanes the one whose column it is: pairs, 8 apart.
            const u32 at = positive_at[part][half];
            if (at < OTHER && at % 8 < 2) positive_product[rows.row[part][half]] = found[part][half];
        });
    }
};

// Sums of columns begin .. end - 1. With GUESSED the reference stays; else it is the largest product so far, of each
// lane for itself until the end.
template <bool GUESSED>
__device__ __forceinline__ void sweep(Rows &rows, const Own<KEPT> (&own)[PARTS], u32 tiles, const element *columns,
                                      int begin, int end, float *positive_product, const Problem &p) {
    const float scale = p.inverse * LOG2_E;
    Stream<OTHER, 32 * WARPS> stream(columns, p.d, begin, p.columns);
    stream.copy(tiles);
    copy_commit();
    // From a warp's rows to 64 columns there are so many differences of column and row.
    constexpr u32 DIFFERENCES = OTHER + 16 * PARTS - 1;
    const int last_row = __shfl_sync(ALL_LANES, rows.row[PARTS - 1][1], 31);
    float shift[PARTS][2];
    over_rows([&](int part, int half) { shift[part][half] = rows.reference[part][half] * scale; });
    const auto set_reference = [&](int part, int half, float reference) {
        shift[part][half] = reference == -INF ? 0.0f : reference * scale;
        rows.sum[part][half] *= exp2_fast(fmaf(rows.reference[part][half], scale, -shift[part][half]));
        rows.reference[part][half] = reference;
    };
    const auto add = [&](Products &products) {
        if (!GUESSED) {
            float top[PARTS][2];
            over_rows([&](int part, int half) { top[part][half] = rows.reference[part][half]; });
            products.over([&](int part, int half, int, float s) { top[part][half] = fmaxf(top[part][half], s); });
            over_rows([&](int part, int half) { set_reference(part, half, top[part][half]); });
        }
        products.over([&](int part, int half, int, float s) {
            rows.sum[part][half] += exp2_fast(fmaf(s, scale, -shift[part][half]));
        });
    };
    u32 stage = 0;
    // A special tile leaves the inner loop for a moment, so that its instructions are not among the others'.
    for (int start = begin;; start += OTHER, stage ^= 1) {
        Products products;
        for (; start < end; start += OTHER, stage ^= 1) {
            copy_wait<0>();
            __syncthreads(); // this tile is there, and all warps have read the one before, where the next one goes
            if (start + OTHER < end) stream.copy(tiles + (stage ^ 1) * OTHER_BYTES);
            copy_commit();
            Tile tile(tiles + stage * OTHER_BYTES);
            tile.keep();
            products.make(own, tile);

            // Few tiles have a column that a row does not see, or its positive.
            bool special = start + OTHER > p.columns || u32(p.self_offset) + last_row - start < DIFFERENCES;
            over_rows([&](int part, int half) { special |= u32(rows.positive[part][half] - start) < OTHER; });
            if (__any_sync(ALL_LANES, special)) break;
            add(products);
        }
        if (start >= end) break;
        products.look(rows, start, positive_product, p);
        add(products);
    }
    over_rows([&](int part, int half) {
        if (!GUESSED) set_reference(part, half, row_max(rows.reference[part][half]));
        rows.sum[part][half] = row_sum(rows.sum[part][half]);
    });
}

#define PASTE_DIM(name, dim) ENTRY(name##_d##dim)
#define WITH_DIM(name, dim) PASTE_DIM(name, dim)

// rows: [R, D], columns: [C, D], positive: [R] column numbers or null -> part_max, part_sum: [splits, stride], stride
// at least R; positive_product: [R], where the positive is a column that the row sees.
KERNEL __launch_bounds__(32 * WARPS, 2)
    WITH_DIM(ntxent_fwd_mma, DIM)(const element *rows, const element *columns, const i32 *positive, float *part_max,
                                  float *part_sum, float *positive_product, Problem p, int tiles_per_split, int stride) {
    extern __shared__ __align__(512) uint4 shared[];
    const u32 own_tile = shared_address(shared);       // (OWN, DIM)
    const u32 tiles = own_tile + OWN * ROW_BYTES;      // (2, OTHER, DIM)
    const int first = blockIdx.x * OWN, own_row = 16 * PARTS * warp_id();
    const int begin = int(blockIdx.y) * tiles_per_split * OTHER;
    const int end = min(p.columns, begin + tiles_per_split * OTHER);

    copy_rows(own_tile, rows, p.d, first, OWN, p.rows, p.d, threadIdx.x, 32 * WARPS);
    copy_commit();
    copy_wait<0>();
    __syncthreads(); // the rows are there
    Own<KEPT> own[PARTS];
#pragma unroll
    for (int part = 0; part < PARTS; part++) own[part].load(own_tile, own_row + 16 * part);
    Rows of;
    over_rows([&](int part, int half) {
        const int row = first + own_row + 16 * part + own_group() + 8 * half;
        int column = positive && row < p.rows ? positive[row] : -1;
        if (!is_valid(p, row, column)) column = -1;
        of.row[part][half] = row, of.positive[part][half] = column, of.sum[part][half] = 0.0f;
    });
#pragma unroll
    for (int part = 0; part < PARTS; part++) {
        // Squared lengths are on the diagonal of the rows' products with themselves: row g's pair of columns that has
        // column g is with the row's lane g / 2.
        float s[1][2][4] = {};
        add_inner(own[part], own[part].tile, own[part].row, s);
        const int odd = own_group() % 2, lane = lane_id() / 4 * 4 + own_group() / 2;
        of.reference[part][0] = __shfl_sync(ALL_LANES, odd ? s[0][0][1] : s[0][0][0], lane);
        of.reference[part][1] = __shfl_sync(ALL_LANES, odd ? s[0][1][3] : s[0][1][2], lane);
    }
    sweep<true>(of, own, tiles, columns, begin, end, positive_product, p);
    bool good = true;
    over_rows([&](int part, int half) {
        const float sum = of.sum[part][half];
        good = good && (of.row[part][half] >= p.rows || (sum >= LEAST && sum <= MOST));
    });
    if (!__syncthreads_and(good)) { // all warps have read the last tile, too
        over_rows([&](int part, int half) { of.reference[part][half] = -INF, of.sum[part][half] = 0.0f; });
        sweep<false>(of, own, tiles, columns, begin, end, positive_product, p);
    }
#pragma unroll
    for (int part = 0; part < PARTS; part++) {
        // One request for all 16 rows: lane 0 of a row's four has the upper row, lane 1 the lower one.
        const int half = lane_id() & 1, row = half ? of.row[part][1] : of.row[part][0];
        if (lane_id() % 4 < 2 && row < p.rows) {
            part_max[u64(blockIdx.y) * stride + row] = half ? of.reference[part][1] : of.reference[part][0];
            part_sum[u64(blockIdx.y) * stride + row] = half ? of.sum[part][1] : of.sum[part][0];
        }
    }
}
