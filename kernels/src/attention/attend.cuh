// A warp's queries against keys and values in shared memory: the forward pass of the bf16 attention kernels on tensor
// cores, 32 keys at a time.
//
// A softmax is the same whatever is subtracted from its exponents. What must not happen is that weights overflow, or
// that all of a row vanish. So a row takes the maximum of the first keys that it sees as its reference, and looks for
// another only where a weight has become larger than 2^40: no maximum, and nothing to be rescaled, elsewhere. bf16 and
// float32 have the same exponents, and a weight is as precise at 2^40 as at 1. Where all of a head's keys are in shared
// memory (take_head) that is looked for once, at the end, and the warp's rows are made again; else (take_all) before 32
// keys are taken in.
//
// Weights are rounded to bf16 as operands. What normalises the result is the sum of the rounded ones, which tensor
// cores make with a matrix of ones: so the result is a mean of values, and where one key has all the weight it is that
// key's value. lse is of the sum before rounding.
#pragma once

#include "attention/fragments.cuh"

// A row's reference is another where the weights that a lane has of it are more: sums of values of up to 2^80 cannot
// overflow.
constexpr float MOST = 1.0995116e12f; // 2^40
// References are exponents between -LARGEST and this, so that what they are rounded by is below 2^40. Scores below that
// are as minus infinity, and one above makes its row NaN.
constexpr float LARGEST = 536870912.0f; // 2^29
constexpr u32 ONES = 0x3f803f80u;       // two elements

// 16 PARTS queries of a warp, and what they have of the keys so far.
template <int PARTS, bool HAS_MASK> struct Queries {
    Operand query[PARTS];
    Sums sum[PARTS];         // of weighted values
    // Sums of row g's weights, [0] as rounded and [1] the lane's before that; [2], [3] of row g + 8. Of the matrix that
    // tensor cores multiply the weights with, odd columns are 0, so that its product leaves [1] and [3] as they are.
    float weights[PARTS][4];
    float shift[PARTS][2]; // the row's reference, as an exponent: the lowest until it sees a key

    // From rows `row` on of a tile.
    __device__ __forceinline__ void load(const Tile &tile, u32 row) {
#pragma unroll
        for (int part = 0; part < PARTS; part++) load_operand(tile, row + 16 * part, query[part]);
    }
    // Nothing is taken in.
    __device__ __forceinline__ void clear() {
#pragma unroll
        for (int part = 0; part < PARTS; part++) {
#pragma unroll
            for (int e = 0; e < 4; e++) {
                weights[part][e] = 0.0f, shift[part][e / 2] = -LARGEST;
#pragma unroll
                for (int n = 0; n < 2 * STEPS; n++) sum[part][n][e] = 0.0f;
            }
        }
    }

    // s = raw scores of 16 GROUPS keys from the tile's row `row` on; with TAIL those behind the first `columns` are
    // hidden. `score` and the tokens that the warp's first query and the first key are: for a mask.
    template <int GROUPS, bool TAIL>
    __device__ __forceinline__ void scores(const Tile &keys, u32 row, u32 columns, const Softmax &softmax, const Score &score,
                                           u32 query_token, u32 key_token,
                                           float (&s)[PARTS][GROUPS][2][4]) const {
#pragma unroll
        for (int part = 0; part < PARTS; part++)
#pragma unroll
            for (int j = 0; j < GROUPS; j++) over_tile([&](int h, int e) { s[part][j][h][e] = 0.0f; });
#pragma unroll
        for (int j = 0; j < GROUPS; j++)
#pragma unroll
            for (int step = 0; step < STEPS; step++) {
                u32 b[4];
                load_others(keys, row + 16 * j, step, b);
#pragma unroll
                for (int part = 0; part < PARTS; part++)
                    multiply_halves(s[part][j][0], s[part][j][1], query[part][step], b);
            }
        const int limit = int(columns) - own_pair(); // of a lane's columns
        if constexpr (HAS_MASK) {
#pragma unroll
            for (int part = 0; part < PARTS; part++)
#pragma unroll
                for (int half = 0; half < 2; half++) {
                    const u32 query = query_token + 16 * part + 8 * half + own_group();
                    const float *mask = mask_row(score, query) + key_token + own_pair();
#pragma unroll
                    for (int j = 0; j < GROUPS; j++)
#pragma unroll
                        for (int h = 0; h < 2; h++)
#pragma unroll
                            for (int e = 0; e < 2; e++) {
                                const int column = 16 * j + 8 * h + e;
                                float &x = s[part][j][h][2 * half + e];
                                if (!TAIL || column < limit) x = masked(x, score, mask[column]);
                            }
                }
        }
        if constexpr (TAIL) {
#pragma unroll
            for (int part = 0; part < PARTS; part++)
#pragma unroll
                for (int j = 0; j < GROUPS; j++)
                    over_tile([&](int h, int e) {
                        if (16 * j + 8 * h + e % 2 >= limit) s[part][j][h][e] = softmax.hidden();
                    });
        }
    }

    // Makes references no less than the scores of 16 keys, of which `columns` are there. With FIRST nothing was taken in
    // yet.
    template <bool FIRST>
    __device__ __forceinline__ void refer(const Tile &keys, u32 columns, const Softmax &softmax, const Score &score,
                                          u32 query_token, u32 key_token) {
        float s[PARTS][1][2][4];
        scores<1, true>(keys, 0, columns, softmax, score, query_token, key_token, s);
#pragma unroll
        for (int part = 0; part < PARTS; part++)
#pragma unroll
            for (int half = 0; half < 2; half++) {
                float most = -INFINITE;
#pragma unroll
                for (int h = 0; h < 2; h++)
#pragma unroll
                    for (int e = 2 * half; e < 2 * half + 2; e++)
                        most = fmaxf(most, s[part][0][h][e] * softmax.factor);
                most = row_max(most);
                const float old = shift[part][half], larger = fmaxf(old, most);
                const float by = exp2_fast(old - larger);
                shift[part][half] = old < LARGEST && larger < LARGEST ? larger : NOT_A_NUMBER;
                if constexpr (!FIRST) {
#pragma unroll
                    for (int e = 2 * half; e < 2 * half + 2; e++) {
                        weights[part][e] *= by;
#pragma unroll
                        for (int n = 0; n < 2 * STEPS; n++) sum[part][n][e] *= by;
                    }
                }
            }
    }

    // Weights of scores s, rounded as operands, and the sums of a lane's before that.
    template <int GROUPS>
    __device__ __forceinline__ void weigh(float (&s)[PARTS][GROUPS][2][4], const Softmax &softmax,
                                          u32 (&operand)[PARTS][GROUPS][4], float (&added)[PARTS][2]) const {
#pragma unroll
        for (int part = 0; part < PARTS; part++)
#pragma unroll
            for (int j = 0; j < GROUPS; j++) {
                float(&x)[2][4] = s[part][j];
                over_tile([&](int h, int e) { x[h][e] = softmax.weight(x[h][e], shift[part][e / 2]); });
                to_operand(x, operand[part][j]);
#pragma unroll
                for (int half = 0; half < 2; half++) {
                    const float four = (x[0][2 * half] + x[0][2 * half + 1]) + (x[1][2 * half] + x[1][2 * half + 1]);
                    added[part][half] = j == 0 ? four : added[part][half] + four;
                }
            }
    }
    // Adds the values from the tile's row `row` on with their weights.
    template <int GROUPS>
    __device__ __forceinline__ void add(const Tile &values, u32 row, const u32 (&operand)[PARTS][GROUPS][4]) {
        const u32 ones = own_group() % 2 ? 0 : ONES;
#pragma unroll
        for (int j = 0; j < GROUPS; j++) {
#pragma unroll
            for (int step = 0; step < STEPS; step++) {
                u32 b[4];
                load_others_transposed(values, row + 16 * j, step, b);
#pragma unroll
                for (int part = 0; part < PARTS; part++)
                    multiply_halves(sum[part][2 * step], sum[part][2 * step + 1], operand[part][j], b);
            }
#pragma unroll
            for (int part = 0; part < PARTS; part++) mma_bf16(weights[part], operand[part][j], ones, ones);
        }
    }
    __device__ __forceinline__ void add(const float (&added)[PARTS][2]) {
#pragma unroll
        for (int part = 0; part < PARTS; part++) weights[part][1] += added[part][0], weights[part][3] += added[part][1];
    }

    // Takes in 16 GROUPS keys and values from the first row of both tiles on, or with TAIL the first `columns` of them.
    // False, and nothing is taken in, if a row needs another reference.
    template <int GROUPS, bool TAIL>
    __device__ __forceinline__ bool take(const Tile &keys, const Tile &values, u32 columns, const Softmax &softmax,
                                         const Score &score, u32 query_token, u32 key_token) {
        float s[PARTS][GROUPS][2][4], added[PARTS][2];
        scores<GROUPS, TAIL>(keys, 0, columns, softmax, score, query_token, key_token, s);
        u32 operand[PARTS][GROUPS][4];
        weigh(s, softmax, operand, added);
        bool exceeds = false;
#pragma unroll
        for (int part = 0; part < PARTS; part++) exceeds |= added[part][0] > MOST || added[part][1] > MOST;
        if (__any_sync(ALL_LANES, exceeds)) return false;
        add(added);
        add(values, 0, operand);
        return true;
    }
    // The same for references that are taken for right until all keys are taken in: 16 keys after the other, of which some
    // are multiplied while the weights of others are made.
    template <int GROUPS, bool TAIL>
    __device__ __forceinline__ void take(const Tile &keys, const Tile &values, u32 columns, const Softmax &softmax) {
        static_assert(!HAS_MASK, "of which no tokens are told");
        constexpr int ONCE = HEAD > 32 || __CUDA_ARCH__ < 900 ? GROUPS : 1; // what registers leave room for
#pragma unroll
        for (int j = 0; j < GROUPS; j += ONCE) {
            float s[PARTS][ONCE][2][4], added[PARTS][2];
            u32 operand[PARTS][ONCE][4];
            scores<ONCE, TAIL>(keys, 16 * j, columns, softmax, {}, 0, 0, s);
            weigh(s, softmax, operand, added);
            add(added);
            add(values, 16 * j, operand);
        }
    }

    // Takes in all of the first `count` keys and values of tiles, when nothing was taken in before; rows up to a multiple
    // of 16 are there. References are the maxima over the first keys, of which `referred` are looked at. The last `rest`
    // keys, after a multiple of 32, may be on their way: after those before, arrive() waits for them and sets it to 0.
    template <typename F>
    __device__ __forceinline__ void take_head(Tile keys, Tile values, u32 count, u32 referred, const Softmax &softmax,
                                              u32 &rest, F arrive) {
        Tile these = keys;
#pragma unroll 1
        for (u32 i = 0; i < referred && i < count; i += 16, these.others += 16 * ROW_BYTES)
            refer<true>(these, count - i, softmax, {}, 0, 0);
        u32 left = count - rest;
        while (true) {
            for (; left >= 32; left -= 32) {
                take<2, false>(keys, values, 32, softmax);
                keys.others += 32 * ROW_BYTES, values.rows += 32 * ROW_BYTES;
            }
            if (!rest) break;
            left = rest;
            arrive();
        }
        for (; left > 0; left -= min(left, 16)) {
            take<1, true>(keys, values, left, softmax);
            keys.others += 16 * ROW_BYTES, values.rows += 16 * ROW_BYTES;
        }
    }
    // Whether a weight was so much above its reference that the row must be made again with another one.
    __device__ __forceinline__ bool exceeds() const {
        bool exceeds = false;
#pragma unroll
        for (int part = 0; part < PARTS; part++)
            exceeds |= !(weights[part][1] <= MOST) || !(weights[part][3] <= MOST);
        return __any_sync(ALL_LANES, exceeds);
    }

    // Takes in the first `count` keys and values of tiles; rows up to a multiple of 16 are there. `first` if nothing was
    // taken in before.
    __device__ __forceinline__ void take_all(Tile keys, Tile values, u32 count, const Softmax &softmax,
                                             const Score &score, u32 query_token, u32 key_token, bool first) {
        u32 left = count;
        if (first && left > 0) refer<true>(keys, left, softmax, score, query_token, key_token);
        while (left > 0) {
            for (; left >= 32; left -= 32) {
                if (!take<2, false>(keys, values, 32, softmax, score, query_token, key_token + count - left)) break;
                keys.others += 32 * ROW_BYTES, values.rows += 32 * ROW_BYTES;
            }
            for (; left > 0 && left < 32; left -= min(left, 16)) {
                if (!take<1, true>(keys, values, left, softmax, score, query_token, key_token + count - left)) break;
                keys.others += 16 * ROW_BYTES, values.rows += 16 * ROW_BYTES;
            }
            // References are not what they must be for what was to be taken in.
            Tile these = keys;
            for (u32 i = 0; i < 32 && i < left; i += 16, these.others += 16 * ROW_BYTES)
                refer<false>(these, left - i, softmax, score, query_token, key_token + count - left + i);
        }
    }

    // Writes what has become of tokens first ..: out [T, H, D] of the sample and head, and lse [T].
    __device__ __forceinline__ void store(bool wrong, element *out, float *lse, u32 first, const Problem &p) const {
        const float none = wrong ? NOT_A_NUMBER : 0.0f;
        float all = 0.0f, reference = 0.0f;
#pragma unroll
        for (int part = 0; part < PARTS; part++) {
            float inverse[2];
#pragma unroll
            for (int half = 0; half < 2; half++) {
                const float rounded = weights[part][2 * half], sum_of_row = row_sum(weights[part][2 * half + 1]);
                inverse[half] = rounded == 0.0f ? none : reciprocal(rounded);
                // Each of a row's lanes writes the lse of another row.
                if (lane_id() % 4 == 2 * part + half) all = sum_of_row, reference = shift[part][half];
            }
            store_sums(sum[part], inverse, out, row_stride(p), first + 16 * part, p.tokens, p.size);
        }
        const int place = lane_id() % 4;
        const u32 row = first + 8 * place + own_group();
        if (place < 2 * PARTS && row < p.tokens)
            lse[row] = all == 0.0f ? none - INFINITE : fmaf(reference, LN_2, logf(all));
    }
};
