// Gradients of attention in bf16 on tensor cores, 16 rows against 16 rows at a time. With p_ts = exp(scale q_t . k_s -
// lse_t):
//
//     dv_s = sum_t p_ts dout_t        delta_t = dout_t . out_t        e_ts = p_ts (dout_t . v_s - delta_t)
//     dq_t = scale sum_s e_ts k_s     dk_s = scale sum_t e_ts q_t
//
// A warp owns 16 or 32 queries, and sums over keys, or as many keys, and sums over queries. Both make the scores again: 7 products
// where one pass would need 5, but every sum has one owner, stays in registers and has one order, so the same bits come
// out each time, in whatever tiles the others come.
//
// Defines: MASKED where there is a mask.
#pragma once

#include "attention/fragments.cuh"

#if defined(MASKED)
constexpr bool IS_MASKED = true;
#else
constexpr bool IS_MASKED = false;
#endif

// The weight exp(score - lse) as a power of two, with one rounding of its exponent: log_sum is lse log2 e, or infinity
// for a row that sees nothing. `mask` is where the pair's element is, if there is a mask.
__device__ __forceinline__ float weight_of(float product, const Score &score, const float *mask, float log_sum) {
    if (IS_MASKED) return exp2_fast(fmaf(masked(product, score, *mask), LOG2_E, -log_sum));
    return exp2_fast(fmaf(product, score.scale * LOG2_E, -log_sum));
}

// A tile from `rows` further on, a multiple of 16.
__device__ __forceinline__ Tile further(Tile tile, u32 rows) {
    tile.rows += rows * ROW_BYTES, tile.others += rows * ROW_BYTES;
    return tile;
}

// Volatile: neither made one of two nor joined to a wider one, so that what is loaded comes where it is used.
__device__ __forceinline__ float load_float(u32 from) {
    float x;
    asm volatile("ld.volatile.shared.f32 %0, [%1];" : "=f"(x) : "r"(from));
    return x;
}
__device__ __forceinline__ void load_pair(u32 from, float &x, float &y) {
    asm volatile("ld.volatile.shared.v2.f32 {%0, %1}, [%2];" : "=f"(x), "=f"(y) : "r"(from));
}
__device__ __forceinline__ void store_float(u32 to, float x) {
    asm volatile("st.shared.f32 [%0], %1;" ::"r"(to), "f"(x) : "memory");
}

// What belongs to rows, beside their vectors, in shared memory: {-delta, -delta', log_sum, log_sum'} of two rows each. delta
// is negative, as products start with it; log_sum is lse log2 e, or infinity, with which all weights are 0, for a row that
// sees nothing or does not exist.
//
// The four sums of a lane start with {-delta, -delta', -delta, -delta'}. TWICE, these lie there, and 8 bytes are unused;
// else two are moved, which is better where shared memory is what there is most to wait for.
struct RowScalars {
    u32 at; // of the first row
    static constexpr bool TWICE = HEAD <= 32;
    static constexpr u32 SIZE = TWICE ? 16 : 8; // bytes of a row

    __device__ __forceinline__ explicit RowScalars(u32 at) : at(at) {}
    // From `rows` further on, a multiple of 2.
    __device__ __forceinline__ RowScalars further(u32 rows) const { return RowScalars(at + SIZE * rows); }
    __device__ __forceinline__ u32 place(u32 row) const { return at + row / 2 * 2 * SIZE + row % 2 * 4; }
    __device__ __forceinline__ void set(u32 row, float lse, float delta) const {
        store_float(place(row), -delta), store_float(place(row) + SIZE, lse_or_infinity(lse) * LOG2_E);
        if (TWICE) store_float(place(row) + 8, -delta);
    }
    __device__ __forceinline__ float delta(u32 row) const { return load_float(place(row)); }
    __device__ __forceinline__ float log_sum(u32 row) const { return load_float(place(row) + SIZE); }
    // Of two rows from `row` on; deltas twice.
    __device__ __forceinline__ void two(u32 row, float (&deltas)[4], float (&log_sums)[2]) const {
        load_pair(at + SIZE * (row + 1), log_sums[0], log_sums[1]);
        if constexpr (TWICE) {
            load_words(at + SIZE * row, deltas);
        } else {
            load_pair(at + SIZE * row, deltas[0], deltas[1]);
            deltas[2] = deltas[0], deltas[3] = deltas[1];
        }
    }
};

// s[part][j] += own[part] . other for PARTS times 16 own and COUNT times 16 other vectors of a tile. Step by step, so that
// neighbouring products do not wait for each other.
template <int PARTS, int COUNT, bool KEPT>
__device__ __forceinline__ void add_inner(const Own<KEPT> (&own)[PARTS], const Tile &tile,
                                          float (&s)[PARTS][COUNT][2][4]) {
#pragma unroll
    for (int step = 0; step < STEPS; step++) {
        u32 a[PARTS][4];
#pragma unroll
        for (int part = 0; part < PARTS; part++) own[part].step(step, a[part]);
#pragma unroll
        for (int j = 0; j < COUNT; j++) {
            u32 b[4];
            load_others(tile, 16 * j, step, b);
#pragma unroll
            for (int part = 0; part < PARTS; part++) multiply_halves(s[part][j][0], s[part][j][1], a[part], b);
        }
    }
}
// sum[part] += weights[part] . others, of the tile's row `row` and the 15 behind.
template <int PARTS>
__device__ __forceinline__ void add_weighted(const u32 (&weights)[PARTS][4], const Tile &tile, u32 row,
                                             Sums (&sum)[PARTS]) {
#pragma unroll
    for (int step = 0; step < STEPS; step++) {
        u32 b[4];
        load_others_transposed(tile, row, step, b);
#pragma unroll
        for (int part = 0; part < PARTS; part++)
            multiply_halves(sum[part][2 * step], sum[part][2 * step + 1], weights[part], b);
    }
}

// 16 PARTS queries of a warp, and the sums that are their gradients.
template <int PARTS> struct OwnQueries {
    Own<true> query[PARTS], upstream[PARTS];
    float log_sum[PARTS][2];
    float delta[PARTS][4]; // negative, as products start with it: twice row g's, twice row g + 8's
    u32 first;             // token
    Sums dquery[PARTS] = {};

    // Rows from `row` on of tiles, which begin with token `start`, and of what belongs to them.
    __device__ __forceinline__ OwnQueries(u32 queries, u32 upstreams, u32 row, u32 start, const RowScalars &scalars) {
        first = start + row;
#pragma unroll
        for (int part = 0; part < PARTS; part++) {
            query[part].load(queries, row + 16 * part), upstream[part].load(upstreams, row + 16 * part);
#pragma unroll
            for (int half = 0; half < 2; half++) {
                const u32 own = row + 16 * part + 8 * half + own_group();
                log_sum[part][half] = scalars.log_sum(own);
                // Read twice: of one value the compiler would make the four that a product starts with each time again.
                delta[part][2 * half] = scalars.delta(own), delta[part][2 * half + 1] = scalars.delta(own);
            }
        }
    }
    // Takes in the first COUNT times 16 keys and values of tiles, or with TAIL the first `columns` of them. The first is
    // token `start`.
    template <int COUNT, bool TAIL>
    __device__ __forceinline__ void take(const Tile &keys, const Tile &values, u32 start, u32 columns,
                                         const Score &score) {
        float s[PARTS][COUNT][2][4], dp[PARTS][COUNT][2][4];
#pragma unroll
        for (int part = 0; part < PARTS; part++)
#pragma unroll
            for (int j = 0; j < COUNT; j++)
                over_tile([&](int h, int e) { s[part][j][h][e] = 0.0f, dp[part][j][h][e] = delta[part][e]; });
        add_inner(query, keys, s);
        add_inner(upstream, values, dp);
        const int limit = int(columns) - own_pair(); // of a lane's columns
#pragma unroll
        for (int j = 0; j < COUNT; j++) {
            u32 weights[PARTS][4];
#pragma unroll
            for (int part = 0; part < PARTS; part++) {
                const float *mask[2];
#pragma unroll
                for (int half = 0; half < 2; half++)
                    mask[half] = IS_MASKED ? mask_row(score, first + 16 * part + own_group() + 8 * half) + start +
                                                 own_pair()
                                           : nullptr;
                float(&x)[2][4] = s[part][j];
                over_tile([&](int h, int e) {
                    const int column = 16 * j + 8 * h + e % 2;
                    if (TAIL && column >= limit)
                        x[h][e] = 0.0f;
                    else
                        x[h][e] = weight_of(x[h][e], score, mask[e / 2] + column, log_sum[part][e / 2]) *
                                  dp[part][j][h][e];
                });
                to_operand(x, weights[part]);
            }
            add_weighted(weights, keys, 16 * j, dquery);
        }
    }
    // Takes in the first `count` keys and values of tiles; rows up to a multiple of 16 are there.
    __device__ __forceinline__ void take_all(Tile keys, Tile values, u32 start, u32 count, const Score &score) {
        u32 row = 0;
        for (; row + 32 <= count; row += 32) {
            take<2, false>(keys, values, start + row, 32, score);
            keys = further(keys, 32), values = further(values, 32);
        }
        for (; row < count; row += 16) {
            take<1, true>(keys, values, start + row, count - row, score);
            keys = further(keys, 16), values = further(values, 16);
        }
    }
    __device__ __forceinline__ void store(float factor, element *rows, u32 first, const Problem &p) const {
        const float factors[2] = {factor, factor};
#pragma unroll
        for (int part = 0; part < PARTS; part++)
            store_sums(dquery[part], factors, rows, token_stride(p), first + 16 * part, p.tokens, p.size);
    }
};

// 16 PARTS keys of a warp with their values, and the sums that are their gradients.
template <int PARTS> struct OwnKeys {
    Own<(HEAD <= 64)> key[PARTS], value[PARTS];
    u32 first; // token
    Sums dkey[PARTS] = {}, dvalue[PARTS] = {};

    __device__ __forceinline__ OwnKeys(u32 keys, u32 values, u32 row, u32 start) {
        first = start + row;
#pragma unroll
        for (int part = 0; part < PARTS; part++)
            key[part].load(keys, row + 16 * part), value[part].load(values, row + 16 * part);
    }

    // Takes in the first COUNT times 16 queries of tiles, and what belongs to them; vectors behind the last are zeros. The
    // first is token `start`. `scalars` is from the lane's first column on.
    template <int COUNT>
    __device__ __forceinline__ void take(const Tile &queries, const Tile &upstreams, u32 start,
                                         const RowScalars &scalars, const Score &score) {
        float s[PARTS][COUNT][2][4], dp[PARTS][COUNT][2][4], log_sum[COUNT][2][2];
#pragma unroll
        for (int j = 0; j < COUNT; j++)
#pragma unroll
            for (int h = 0; h < 2; h++) {
                float deltas[4];
                scalars.two(16 * j + 8 * h, deltas, log_sum[j][h]);
#pragma unroll
                for (int part = 0; part < PARTS; part++)
#pragma unroll
                    for (int e = 0; e < 4; e++) s[part][j][h][e] = 0.0f, dp[part][j][h][e] = deltas[e];
            }
        add_inner(key, queries, s);
        add_inner(value, upstreams, dp);
#pragma unroll
        for (int j = 0; j < COUNT; j++) {
            u32 weights[PARTS][4];
#pragma unroll
            for (int part = 0; part < PARTS; part++) {
#pragma unroll
                for (int h = 0; h < 2; h++)
#pragma unroll
                    for (int odd = 0; odd < 2; odd++) {
                        const float *mask =
                            IS_MASKED ? mask_row(score, start + 16 * j + 8 * h + own_pair() + odd) : nullptr;
#pragma unroll
                        for (int half = 0; half < 2; half++) {
                            const u32 own = min(first + 16 * part + own_group() + 8 * half, score.tokens - 1);
                            float &x = s[part][j][h][2 * half + odd];
                            x = weight_of(x, score, mask + own, log_sum[j][h][odd]);
                        }
                    }
                to_operand(s[part][j], weights[part]);
            }
            add_weighted(weights, upstreams, 16 * j, dvalue);
        }
#pragma unroll
        for (int j = 0; j < COUNT; j++) {
            u32 weights[PARTS][4];
#pragma unroll
            for (int part = 0; part < PARTS; part++) {
                over_tile([&](int h, int e) { s[part][j][h][e] *= dp[part][j][h][e]; });
                to_operand(s[part][j], weights[part]);
            }
            add_weighted(weights, queries, 16 * j, dkey);
        }
    }
    // Takes in the first `count` queries of tiles, a multiple of 16.
    __device__ __forceinline__ void take_all(Tile queries, Tile upstreams, u32 start, u32 count, RowScalars scalars,
                                             const Score &score) {
        // What registers leave room for.
        constexpr u32 ROWS = HEAD > 64 || (HEAD * PARTS > 32 && __CUDA_ARCH__ < 900) ? 16 : 32;
        scalars = scalars.further(own_pair());
        asm volatile("" : "+r"(scalars.at)); // kept
        u32 row = 0;
        for (; row + ROWS <= count; row += ROWS) {
            take<ROWS / 16>(queries, upstreams, start + row, scalars, score);
            queries = further(queries, ROWS), upstreams = further(upstreams, ROWS), scalars = scalars.further(ROWS);
        }
        if (ROWS > 16 && row < count) take<1>(queries, upstreams, start + row, scalars, score);
    }
    // Keys that are not seen have gradient 0, or NaN where the number of those that are is wrong.
    __device__ __forceinline__ void store(const Keys &keys, element *dkeys, element *dvalues, u32 first,
                                          const Problem &p) {
        const float scales[2] = {p.scale, p.scale}, ones[2] = {1.0f, 1.0f};
#pragma unroll
        for (int part = 0; part < PARTS; part++) {
            const u32 row = first + 16 * part;
            if (__builtin_expect(row + 16 > keys.count, 0)) {
                const float none = keys.wrong ? NOT_A_NUMBER : 0.0f;
#pragma unroll
                for (int e = 0; e < 4; e++) {
                    if (row + own_group() + 8 * (e / 2) < keys.count) continue;
#pragma unroll
                    for (int n = 0; n < 2 * STEPS; n++) dkey[part][n][e] = dvalue[part][n][e] = none;
                }
            }
            store_sums(dkey[part], scales, dkeys, token_stride(p), row, p.tokens, p.size);
            store_sums(dvalue[part], ones, dvalues, token_stride(p), row, p.tokens, p.size);
        }
    }
};

// Puts `count` rows of dout from `first` on into a tile, zeros behind the last, and what belongs to them into `scalars`,
// with delta = dout . out; if `delta` is not null, there too. By all threads of the block; the lanes that have a row's
// packs add up in a fixed order. A thread has AT_ONCE packs of dout and of out on the way at once, and what belongs to
// their rows: memory is waited for once for all of them, and for all copies that were started before.
template <int AT_ONCE>
__device__ __forceinline__ void load_upstream(u32 tile, const element *dout, const element *out, const float *lse,
                                              u32 first, u32 count, const RowScalars &scalars, float *delta,
                                              const Problem &p) {
    // A lane has the same pack of all its rows; those of a warp are all inside or all behind, as count is a multiple of 16.
    const u32 pack = threadIdx.x % PACKS, apart = blockDim.x / PACKS;
    for (u32 start = threadIdx.x / PACKS; start < count; start += AT_ONCE * apart) {
        uint4 result[AT_ONCE];
        float log_sum[AT_ONCE];
        u64 at = (first + start) * row_stride(p) + pack * 8;
#pragma unroll
        for (int k = 0; k < AT_ONCE; k++, at += apart * row_stride(p)) {
            const u32 row = start + k * apart;
            const bool exists = row < count && first + row < p.tokens, inside = exists && pack * 8 < p.size;
            if (row < count)
                copy_async(tile + 16 * swizzled<PACKS>(row, pack), inside ? dout + at : dout, inside ? 16 : 0);
            result[k] = load_bits(out + at, inside, true);
            log_sum[k] = exists && pack == 0 ? lse[first + row] : -INFINITE;
        }
        copy_commit();
        copy_wait<0>(); // a thread reads what it copied itself
#pragma unroll
        for (int k = 0; k < AT_ONCE; k++) {
            const u32 row = start + k * apart;
            if (row >= count) break;
            u32 upstream[4];
            float a[PACK], b[PACK], sum = 0.0f;
            load_words(tile + 16 * swizzled<PACKS>(row, pack), upstream);
            unpack(make_uint4(upstream[0], upstream[1], upstream[2], upstream[3]), a), unpack(result[k], b);
#pragma unroll
            for (int e = 0; e < PACK; e++) sum = fmaf(a[e], b[e], sum);
#pragma unroll
            for (int step = 1; step < PACKS; step *= 2) sum += __shfl_xor_sync(ALL_LANES, sum, step);
            if (pack != 0) continue;
            scalars.set(row, log_sum[k], sum);
            if (delta && first + row < p.tokens) delta[first + row] = sum;
        }
    }
}
