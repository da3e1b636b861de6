// Gradients of NT-Xent in bf16 on tensor cores. With G[i][j] = dloss_i (e^(s_ij - lse_i) - [j is i's positive]) /
// temperature
//
//     drows = G columns        dcolumns = G^T rows
//
// A block owns 64 rows (for dcolumns 64 columns) and their gradients, and meets the others OTHER at a time, the next
// ones on the way. It makes the products again, turns them into G in registers, rounded to bf16, and multiplies that
// with the others. A warp has 32 own vectors (16 of more than 128 elements), so that what it loads of the others serves
// as many products as registers allow, and a slice of the others; at the end the slices' sums are added. Each gradient
// is one block's alone: no atomics, no partial results in memory, the same bits every time.
//
// For drows G is made without dloss / temperature, which is the same for a row of sums and comes at the end.
//
// A row whose positive is no column, or one that it must not see, gets the gradient NaN and adds nothing to dcolumns.

#define VECTOR DIM
#include "common/vector_tiles.cuh"
#include "ntxent/problem.cuh"
#include "ntxent/stream.cuh"

constexpr int WARPS = 8, THREADS = 32 * WARPS;
constexpr int OWN = 64;                           // own vectors of a block
constexpr int PARTS = DIM > 128 ? 1 : 2;          // of 16 own vectors that a warp has
constexpr bool KEPT = DIM <= 128;                 // whether a warp has them in registers
constexpr int TOGETHER = KEPT ? 1 : 2;            // times 16 others that a load of own vectors is for
constexpr int OWN_WARPS = OWN / (16 * PARTS);     // that share out the own vectors
constexpr int SLICES = WARPS / OWN_WARPS;         // that share out the others
constexpr int OTHER = 16384 / DIM;                // others met at a time
constexpr int MET = OTHER / SLICES;               // by a warp
static_assert(MET == 32, "a lane looks at one of the others' positives");
// Others whose numbers, if they are rows, are in shared memory: as many as fit into the 99 KiB of a block on sm_86.
constexpr int CHUNK = DIM > 128 ? 128 : 1024;
static_assert(CHUNK % OTHER == 0, "a tile is of one chunk");
constexpr int NONE = -1, INVALID = -2;

// What G needs of a row.
struct Row {
    float lse = INF, coefficient = 0.0f; // lse in powers of two
    int positive = NONE;                 // a column, NONE, or INVALID

    // Of a row that adds nothing every weight is 0.
    __device__ __forceinline__ Row(const Problem &p, int row, const i32 *positives, const float *all_dloss,
                                   const float *all_lse) {
        if (row >= p.rows) return;
        const float row_lse = all_lse[row], dloss = all_dloss[row]; // on the way together
        if (positives) {
            const int column = positives[row];
            positive = is_valid(p, row, column) ? column : INVALID;
        }
        if (positive == INVALID) return;
        lse = row_lse * LOG2_E, coefficient = dloss * p.inverse;
    }
};

// Goes on to the next 16 TOGETHER rows. What is kept is one address for all steps instead of one for each.
__device__ __forceinline__ void advance(Tile &tile) {
    tile.rows += 16 * TOGETHER * ROW_BYTES, tile.others += 16 * TOGETHER * ROW_BYTES;
    tile.keep();
}

// Products of the warp's own vectors with 16 others, then weights.
typedef float Weights[PARTS][2][4];

// Of GROUPS times 16 others, the tile's first rows.
template <int GROUPS>
__device__ __forceinline__ void make_products(const Own<KEPT> (&own)[PARTS], const Tile &tile, Weights (&s)[GROUPS]) {
#pragma unroll
    for (int group = 0; group < GROUPS; group++)
#pragma unroll
        for (int part = 0; part < PARTS; part++) over_tile([&](int h, int e) { s[group][part][h][e] = 0.0f; });
#pragma unroll
    for (int step = 0; step < STEPS; step++) {
        u32 a[PARTS][4];
#pragma unroll
        for (int part = 0; part < PARTS; part++) own[part].step(step, a[part]);
#pragma unroll
        for (int group = 0; group < GROUPS; group++) {
            u32 b[4];
            load_others(tile, 16 * group, step, b);
#pragma unroll
            for (int part = 0; part < PARTS; part++)
                multiply_halves(s[group][part][0], s[group][part][1], a[part], b);
        }
    }
}

// sums += weights . others, 16 rows of the tile from `at` on
__device__ __forceinline__ void add_weighted(const Weights &w, const Tile &tile, int at, Sums (&sums)[PARTS]) {
    u32 a[PARTS][4];
#pragma unroll
    for (int part = 0; part < PARTS; part++) to_operand(w[part], a[part]);
#pragma unroll
    for (int step = 0; step < STEPS; step++) {
        u32 b[4];
        load_others_transposed(tile, at, step, b);
#pragma unroll
        for (int part = 0; part < PARTS; part++)
            multiply_halves(sums[part][2 * step], sums[part][2 * step + 1], a[part], b);
    }
}

// Adds the slices' sums, through memory of half of them that nobody uses any more: the upper half gives its sums to the
// lower half, until the first slice has all. What a slice has read from is where it writes afterwards.
__device__ __forceinline__ void add_slices(Sums (&sums)[PARTS], float4 *shared) {
    static_assert(SLICES == 2 || SLICES == 4, "each slice has read before another writes to the same place");
    constexpr int COUNT = PARTS * 2 * STEPS; // vectors of a lane
    const int slice = warp_id() / OWN_WARPS, warp = warp_id() % OWN_WARPS;
    const auto place = [&](int slice) {
        return shared + (slice % (SLICES / 2) * OWN_WARPS + warp) * COUNT * 32 + lane_id();
    };
#pragma unroll
    for (int lower = SLICES / 2; lower > 0; lower /= 2) {
        if (slice >= lower && slice < 2 * lower) {
            float4 *to = place(slice);
#pragma unroll
            for (int i = 0; i < COUNT; i++) {
                const float(&v)[4] = sums[i / (2 * STEPS)][i % (2 * STEPS)];
                to[i * 32] = make_float4(v[0], v[1], v[2], v[3]);
            }
        }
        __syncthreads(); // the upper slices' sums are written
        if (slice >= lower) continue;
        const float4 *from = place(slice + lower);
#pragma unroll
        for (int i = 0; i < COUNT; i++) {
            const float4 more = from[i * 32];
            float(&v)[4] = sums[i / (2 * STEPS)][i % (2 * STEPS)];
            v[0] += more.x, v[1] += more.y, v[2] += more.z, v[3] += more.w;
        }
    }
}

// out: [own_count, D], the gradient of `own` from `other`; own are the rows if BY_ROW, else the columns.
// vectors: [R, D] and vector_weights: [R] are the positives' share of drows, or null.
template <bool BY_ROW>
__device__ __forceinline__ void gradient(const element *own_vectors, int own_count, const element *others,
                                         int other_count, const i32 *positives, const float *dloss, const float *lse,
                                         element *out, const element *vectors, const float *vector_weights,
                                         const Problem &p) {
    extern __shared__ __align__(512) uint4 shared[];
    const u32 own_tile = shared_address(shared);  // (OWN, DIM)
    const u32 tiles = own_tile + OWN * ROW_BYTES; // (2, OTHER, DIM)
    // Of others that are rows, those of a chunk: lse and coefficient; positive.
    float2 *other_factors = reinterpret_cast<float2 *>(shared + (OWN + 2 * OTHER) * PACKS); // (CHUNK)
    int *other_positive = reinterpret_cast<int *>(other_factors + CHUNK);                   // (CHUNK)
    const int first = blockIdx.x * OWN, own_row = warp_id() % OWN_WARPS * 16 * PARTS;
    const int met = warp_id() / OWN_WARPS * MET; // the warp's first other in a tile
    const float scale = p.inverse * LOG2_E;

    Stream<OTHER, THREADS> stream(others, p.d, 0, other_count);
    copy_rows(own_tile, own_vectors, p.d, first, OWN, own_count, p.d, threadIdx.x, THREADS);
    stream.copy(tiles);
    copy_commit();
    // Of own vectors that are rows.
    __shared__ float own_lse[OWN];
    __shared__ int own_positive[OWN];
    if (BY_ROW && threadIdx.x < OWN) {
        const Row row(p, first + threadIdx.x, positives, dloss, lse);
        own_lse[threadIdx.x] = row.lse, own_positive[threadIdx.x] = row.positive;
    }
    const int lane_row = own_row + own_group(); // rows g and g + 8 of each part
    copy_wait<0>();
    __syncthreads(); // the own vectors are there
    Own<KEPT> own[PARTS];
#pragma unroll
    for (int part = 0; part < PARTS; part++) own[part].load(own_tile, own_row + 16 * part);

    Sums sums[PARTS] = {};
    // Makes weights of products with 16 others from `other` on. A coefficient that is the same for a row of sums comes at
    // the end.
    const auto weigh = [&](Weights &w, int other) {
        float lses[PARTS][2];
#pragma unroll
        for (int i = 0; i < 2 * PARTS && BY_ROW; i++) lses[i / 2][i % 2] = own_lse[lane_row + 8 * i];
#pragma unroll
        for (int h = 0; h < 2; h++) {
            float4 factors = {}; // lse and coefficient of two others
            if (!BY_ROW)
                factors = *reinterpret_cast<const float4 *>(&other_factors[(other + 8 * h + own_pair()) % CHUNK]);
#pragma unroll
            for (int part = 0; part < PARTS; part++)
#pragma unroll
                for (int e = 0; e < 4; e++) {
                    const float row_lse = BY_ROW ? lses[part][e / 2] : e % 2 ? factors.z : factors.x;
                    float &x = w[part][h][e];
                    x = exp2_fast(fmaf(x, scale, -row_lse));
                    if (!BY_ROW) x *= e % 2 ? factors.w : factors.y;
                }
        }
    };
    // Looks at them one by one: a positive's weight is less by 1, and what a row does not see or is behind the end has
    // the weight 0.
    const auto look = [&](Weights &w, int other) {
#pragma unroll
        for (int part = 0; part < PARTS; part++)
            over_tile([&](int h, int e) {
                const int at = lane_row + 16 * part + 8 * (e / 2), theirs = other + 8 * h + own_pair() + e % 2;
                const int row = BY_ROW ? first + at : theirs, column = BY_ROW ? theirs : first + at;
                const int positive = BY_ROW ? own_positive[at] : other_positive[theirs % CHUNK];
                float &x = w[part][h][e];
                if (column == positive) x -= BY_ROW ? 1.0f : other_factors[theirs % CHUNK].y;
                if (theirs >= other_count || hidden(p, row, column)) x = 0.0f;
            });
    };
    for (int start = 0; start < other_count; start += OTHER) {
        copy_wait<0>();
        __syncthreads(); // this tile is there, and all warps have read the one before, where the next one goes
        // Tiles alternate: OTHER is a power of two.
        if (start + OTHER < other_count) stream.copy(tiles + (start & OTHER ^ OTHER) * ROW_BYTES);
        copy_commit();
        if (!BY_ROW && start % CHUNK == 0) {
            for (int i = threadIdx.x; i < CHUNK && start + i < other_count + OTHER; i += THREADS) {
                const Row row(p, start + i, positives, dloss, lse);
                other_factors[i] = make_float2(row.lse, row.coefficient), other_positive[i] = row.positive;
            }
            __syncthreads(); // the chunk is there
        }
        const int other = start + met;
        Tile tile(tiles + (met + (start & OTHER)) * ROW_BYTES); // from the next of the warp's others on

        // Few have a column that a row does not see, or its positive. From MET others to 16 PARTS own vectors there are
        // so many differences of column and row, from `least` on.
        constexpr u32 DIFFERENCES = MET + 16 * PARTS - 1;
        const int own_first = first + own_row;
        const int least = BY_ROW ? other - own_first - (16 * PARTS - 1) : own_first - other - (MET - 1);
        bool special = other + MET > other_count || u32(p.self_offset) - least < DIFFERENCES;
        if (BY_ROW) special |= u32(own_positive[own_row + lane_id() % (16 * PARTS)] - other) < MET;
        else special |= u32(other_positive[(other + lane_id()) % CHUNK] - own_first) < 16 * PARTS;
        special = __any_sync(ALL_LANES, special);
        // What is special leaves the inner loop for a moment, so that its instructions are not among the others'.
        for (int at = 0; at < MET; at += 16 * TOGETHER, advance(tile)) {
            Weights w[TOGETHER];
#pragma unroll 1
            for (; at < MET; at += 16 * TOGETHER, advance(tile)) {
                make_products(own, tile, w);
#pragma unroll
                for (int i = 0; i < TOGETHER; i++) weigh(w[i], other + at + 16 * i);
                if (special) break;
#pragma unroll
                for (int i = 0; i < TOGETHER; i++) add_weighted(w[i], tile, 16 * i, sums);
            }
            if (at >= MET) break;
#pragma unroll
            for (int i = 0; i < TOGETHER; i++) look(w[i], other + at + 16 * i);
#pragma unroll
            for (int i = 0; i < TOGETHER; i++) add_weighted(w[i], tile, 16 * i, sums);
        }
    }

    copy_wait<0>();
    __syncthreads(); // all warps have read the last tile: sums take its place
    add_slices(sums, reinterpret_cast<float4 *>(shared + OWN * PACKS));
    if (warp_id() >= OWN_WARPS) return;
#pragma unroll
    for (int part = 0; part < PARTS; part++) {
        float factor[2] = {1.0f, 1.0f};
#pragma unroll
        for (int side = 0; side < 2 && BY_ROW; side++) {
            const int at = lane_row + 16 * part + 8 * side, row = first + at;
            if (row >= p.rows) continue;
            factor[side] = own_positive[at] == INVALID ? NOT_A_NUMBER : dloss[row] * p.inverse;
            if (!vectors) continue;
            const float weight = vector_weights[row];
#pragma unroll
            for (int n = 0; n < 2 * STEPS; n++) {
                const int column = 8 * n + own_pair();
                if (column >= p.d) continue;
                const u32 pair = *reinterpret_cast<const u32 *>(vectors + u64(row) * p.d + column);
                float *sum = &sums[part][n][2 * side];
                sum[0] = fmaf(weight, __uint_as_float(pair << 16), factor[side] * sum[0]);
                sum[1] = fmaf(weight, __uint_as_float(pair & 0xffff0000u), factor[side] * sum[1]);
            }
            factor[side] = 1.0f;
        }
        store_sums(sums[part], factor, out, p.d, first + own_row + 16 * part, own_count, p.d);
    }
}

#define PASTE_DIM(name, dim) ENTRY(name##_d##dim)
#define WITH_DIM(name, dim) PASTE_DIM(name, dim)

// drows: [R, D]. positives: [R] or null; vectors: [R, D] with their weights: [R], or null.
KERNEL __launch_bounds__(THREADS)
    WITH_DIM(ntxent_bwd_mma_rows, DIM)(const element *rows, const element *columns, const i32 *positives,
                                       const float *dloss, const float *lse, const element *vectors,
                                       const float *vector_weights, element *drows, Problem p) {
    gradient<true>(rows, p.rows, columns, p.columns, positives, dloss, lse, drows, vectors, vector_weights, p);
}

// dcolumns: [C, D].
KERNEL __launch_bounds__(THREADS)
    WITH_DIM(ntxent_bwd_mma_columns, DIM)(const element *rows, const element *columns, const i32 *positives,
                                          const float *dloss, const float *lse, element *dcolumns, Problem p) {
    gradient<false>(columns, p.columns, rows, p.rows, positives, dloss, lse, dcolumns, nullptr, nullptr, p);
}
