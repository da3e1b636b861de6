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
    int row[PARTS][2], positive[PARTS][2]; // a column, or -1
};

// Products of the warp's rows with the tile's 64 columns.
struct Products {
    float s[PARTS][GROUPS][2][4];
    __device__ __forceinline__ void make(const Own<KEPT> (&own)[PARTS], const Tile &columns) {
#pragma unroll
        for (int j = 0; j < GROUPS; j++) {
#pragma unroll
            for (int part = 0; part < PARTS; part++)
#pragma unroll
                for (int e = 0; e < 4; e++) s[part][j][0][e] = s[part][j][1][e] = 0.0f;
#pragma unroll
            for (int step = 0; step < STEPS; step++) {
                u32 a[4], b[4];
                load_others(columns, 16 * j, step, b);
#pragma unroll
                for (int part = 0; part < PARTS; part++) {
                    own[part].step(step, a);
                    mma_bf16(s[part][j][0], a, b[0], b[1]);
                    mma_bf16(s[part][j][1], a, b[2], b[3]);
                }
            }
        }
    }
    template <typename F> __device__ __forceinline__ void over(F f) {
#pragma unroll
        for (int part = 0; part < PARTS; part++)
#pragma unroll
            for (int j = 0; j < GROUPS; j++)
#pragma unroll
                for (int h = 0; h < 2; h++)
#pragma unroll
                    for (int e = 0; e < 4; e++) f(part, e / 2, 16 * j + 8 * h + own_pair() + e % 2, s[part][j][h][e]);
    }
};

// Sums of columns begin .. end - 1. With GUESSED the reference stays; else it is the largest product so far.
template <bool GUESSED>
__device__ __forceinline__ void sweep(Rows &rows, const Own<KEPT> (&own)[PARTS], u32 tiles, const element *columns,
                                      int begin, int end, float *positive_product, const Problem &p) {
    const float scale = p.inverse * LOG2_E;
    const auto copy_tile = [&](int start, u32 stage) {
        if (start < end)
            copy_rows(tiles + stage * OTHER_BYTES, columns, p.d, start, OTHER, p.columns, p.d, threadIdx.x, 32 * WARPS);
    };
    copy_tile(begin, 0);
    copy_commit();
    u32 stage = 0;
    for (int start = begin; start < end; start += OTHER, stage ^= 1) {
        copy_wait<0>();
        __syncthreads(); // this tile is there, and all warps have read the one before, where the next one goes
        copy_tile(start + OTHER, stage ^ 1);
        copy_commit();
        Tile tile(tiles + stage * OTHER_BYTES);
        tile.keep();
        Products products;
        products.make(own, tile);

        // Few tiles have a column that a row does not see, or its positive.
        bool special = start + OTHER > p.columns;
#pragma unroll
        for (int part = 0; part < PARTS; part++)
#pragma unroll
            for (int half = 0; half < 2; half++) {
                special |= u32(rows.positive[part][half] - start) < OTHER;
                special |= u32(p.self_offset) + rows.row[part][half] - start < OTHER;
            }
        if (__any_sync(ALL_LANES, special)) {
            float found[PARTS][2] = {};
            bool has[PARTS][2] = {};
            products.over([&](int part, int half, int at, float &s) {
                const int row = rows.row[part][half], column = start + at;
                const bool unseen = column >= p.columns || hidden(p, row, column);
                const bool mine = !unseen && column == rows.positive[part][half];
                has[part][half] |= mine, found[part][half] = mine ? s : found[part][half];
                s = unseen ? -INF : s;
            });
#pragma unroll
            for (int part = 0; part < PARTS; part++)
#pragma unroll
                for (int half = 0; half < 2; half++)
                    if (has[part][half]) positive_product[rows.row[part][half]] = found[part][half];
        }

        float shift[PARTS][2];
#pragma unroll
        for (int part = 0; part < PARTS; part++)
#pragma unroll
            for (int half = 0; half < 2; half++) {
                float reference = rows.reference[part][half];
                if (!GUESSED) {
#pragma unroll
                    for (int j = 0; j < GROUPS; j++)
#pragma unroll
                        for (int h = 0; h < 2; h++)
#pragma unroll
                            for (int e = 2 * half; e < 2 * half + 2; e++)
                                reference = fmaxf(reference, products.s[part][j][h][e]);
                    reference = row_max(reference);
                }
                shift[part][half] = reference == -INF ? 0.0f : reference * scale;
                if (!GUESSED)
                    rows.sum[part][half] *= exp2_fast(fmaf(rows.reference[part][half], scale, -shift[part][half]));
                rows.reference[part][half] = reference;
            }
        products.over([&](int part, int half, int, float s) {
            rows.sum[part][half] += exp2_fast(fmaf(s, scale, -shift[part][half]));
        });
    }
#pragma unroll
    for (int part = 0; part < PARTS; part++)
#pragma unroll
        for (int half = 0; half < 2; half++) rows.sum[part][half] = row_sum(rows.sum[part][half]);
}

#define PASTE_DIM(name, dim) ENTRY(name##_d##dim)
#define WITH_DIM(name, dim) PASTE_DIM(name, dim)

// rows: [R, D], columns: [C, D], positive: [R] column numbers or null -> part_max, part_sum: [splits, stride], stride
// at least R; positive_product: [R], where the positive is a column that the row sees.
KERNEL __launch_bounds__(32 * WARPS, 2)
    WITH_DIM(ntxent_fwd_mma, DIM)(const element *rows, const element *columns, const i32 *positive, float *part_max,
                                  float *part_sum, float *positive_product, Problem p, int tiles_per_split, int stride) {
    extern __shared__ __align__(512) uint4 shared[];
    __shared__ float lengths[OWN];
    const u32 own_tile = shared_address(shared);       // (OWN, DIM)
    const u32 tiles = own_tile + OWN * ROW_BYTES;      // (2, OTHER, DIM)
    const int first = blockIdx.x * OWN, own_row = 16 * PARTS * warp_id();
    const int begin = int(blockIdx.y) * tiles_per_split * OTHER;
    const int end = min(p.columns, begin + tiles_per_split * OTHER);

    copy_rows(own_tile, rows, p.d, first, OWN, p.rows, p.d, threadIdx.x, 32 * WARPS);
    copy_commit();
    copy_wait<0>();
    __syncthreads(); // the rows are there
    for (int i = threadIdx.x; i < OWN; i += 32 * WARPS) {
        float sum = 0.0f;
        for (int at = 0; at < PACKS; at++) {
            float v[PACK];
            unpack(shared[swizzled<PACKS>(i, at)], v);
#pragma unroll
            for (int e = 0; e < PACK; e++) sum = fmaf(v[e], v[e], sum);
        }
        lengths[i] = sum;
    }
    __syncthreads(); // lengths are written
    Own<KEPT> own[PARTS];
#pragma unroll
    for (int part = 0; part < PARTS; part++) own[part].load(own_tile, own_row + 16 * part);
    Rows of;
#pragma unroll
    for (int part = 0; part < PARTS; part++)
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const int at = own_row + 16 * part + own_group() + 8 * half, row = first + at;
            of.row[part][half] = row;
            of.positive[part][half] = positive && row < p.rows ? positive[row] : -1;
            of.reference[part][half] = lengths[at];
            of.sum[part][half] = 0.0f;
        }
    sweep<true>(of, own, tiles, columns, begin, end, positive_product, p);
    bool good = true;
#pragma unroll
    for (int part = 0; part < PARTS; part++)
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const float sum = of.sum[part][half];
            good = good && (of.row[part][half] >= p.rows || (sum >= LEAST && sum <= MOST));
        }
    if (!__syncthreads_and(good)) { // all warps have read the last tile, too
#pragma unroll
        for (int part = 0; part < PARTS; part++)
#pragma unroll
            for (int half = 0; half < 2; half++) of.reference[part][half] = -INF, of.sum[part][half] = 0.0f;
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
