// Step 4: the products on tensor cores. A block has 64 queries, a warp 16 of them; a tile of 64 keys makes 16 x 64
// scores a warp, which stay in its registers as weights of the values. Copies are waited for, rows of tiles lie one
// behind the other, and lanes store the words of the result that they happen to have.

#include "attention/fragments.cuh"

constexpr int TILE = 64, THREADS = 128, GROUPS = TILE / 16;

// Rows first .. first + 63, zeros from `end` on.
__device__ __forceinline__ void load_tile(uint4 (&tile)[TILE * PACKS], const element *rows, u32 first, u32 end,
                                          const Problem &p) {
    for (u32 i = threadIdx.x; i < TILE * PACKS; i += THREADS) {
        const bool inside = first + i / PACKS < end && i % PACKS * 8 < p.size;
        tile[i] = load_bits(rows + (first + i / PACKS) * token_stride(p) + i % PACKS * 8, inside, true);
    }
}

// qkv: [B, T, 3, H, D], D at most HEAD; out: [B, T, H, D], lse: [B, H, T]; p.tiles: of 64 queries in T
KERNEL ladder_v4(const element *qkv, const i32 *valid, element *out, float *lse, Problem p) {
    __shared__ uint4 queries[TILE * PACKS], keys[TILE * PACKS], values[TILE * PACKS];
    const Place at = place(TILE, p);
    const Keys seen = keys_of(valid, at.sample, p);
    const Softmax softmax(p.scale);
    const u32 lane = lane_id(), own_row = 16 * warp_id();

    load_tile(queries, part_of(qkv, 0, at, p), at.first, p.tokens, p);
    __syncthreads(); // the queries are there
    Operand query;
#pragma unroll
    for (int step = 0; step < STEPS; step++)
        load_matrices(shared_address(&queries[(own_row + lane % 16) * PACKS + 2 * step + lane / 16]), query[step]);

    Sums sum = {};
    float largest[2] = {-INFINITE, -INFINITE}, total[2] = {};
    for (u32 start = 0; start < seen.count; start += TILE) {
        __syncthreads(); // the tile before is read
        load_tile(keys, part_of(qkv, 1, at, p), start, seen.count, p);
        load_tile(values, part_of(qkv, 2, at, p), start, seen.count, p);
        __syncthreads(); // this one is there
        float s[GROUPS][2][4];
#pragma unroll
        for (int j = 0; j < GROUPS; j++) {
            over_tile([&](int h, int e) { s[j][h][e] = 0.0f; });
#pragma unroll
            for (int step = 0; step < STEPS; step++) {
                u32 b[4];
                const u32 row = 16 * j + lane % 8 + lane / 16 * 8;
                load_matrices(shared_address(&keys[row * PACKS + 2 * step + lane / 8 % 2]), b);
                mma_bf16(s[j][0], query[step], b[0], b[1]);
                mma_bf16(s[j][1], query[step], b[2], b[3]);
            }
            over_tile([&](int h, int e) {
                s[j][h][e] *= softmax.factor;
                if (start + 16 * j + 8 * h + own_pair() + e % 2 >= seen.count) s[j][h][e] = -INFINITE;
            });
        }
        float shift[2];
#pragma unroll
        for (int half = 0; half < 2; half++) {
            float top = largest[half];
#pragma unroll
            for (int j = 0; j < GROUPS; j++)
#pragma unroll
                for (int h = 0; h < 2; h++) top = fmaxf(top, fmaxf(s[j][h][2 * half], s[j][h][2 * half + 1]));
            top = row_max(top);
            shift[half] = top == -INFINITE ? 0.0f : top; // no weight is NaN
            const float factor = exp2_fast(largest[half] - shift[half]);
            largest[half] = top, total[half] *= factor;
#pragma unroll
            for (int n = 0; n < 2 * STEPS; n++) sum[n][2 * half] *= factor, sum[n][2 * half + 1] *= factor;
        }
#pragma unroll
        for (int j = 0; j < GROUPS; j++) {
            over_tile([&](int h, int e) {
                s[j][h][e] = exp2_fast(s[j][h][e] - shift[e / 2]);
                total[e / 2] += s[j][h][e];
            });
            u32 weights[4];
            to_operand(s[j], weights);
#pragma unroll
            for (int step = 0; step < STEPS; step++) {
                u32 b[4];
                load_matrices_transposed(
                    shared_address(&values[(16 * j + lane % 16) * PACKS + 2 * step + lane / 16]), b
                );
                mma_bf16(sum[2 * step], weights, b[0], b[1]);
                mma_bf16(sum[2 * step + 1], weights, b[2], b[3]);
            }
        }
    }
    float inverse[2];
    const u32 first = at.first + own_row;
#pragma unroll
    for (int half = 0; half < 2; half++) {
        const float all = row_sum(total[half]), none = seen.wrong ? NOT_A_NUMBER : 0.0f;
        inverse[half] = all == 0.0f ? none : reciprocal(all);
        const u32 row = first + own_group() + 8 * half;
        if (lane % 4 == 0 && row < p.tokens)
            lse[at.pair * p.tokens + row] = all == 0.0f ? none - INFINITE : largest[half] * LN_2 + logf(all);
    }
#pragma unroll
    for (int n = 0; n < 2 * STEPS; n++)
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const u32 row = first + own_group() + 8 * half, column = 8 * n + own_pair();
            if (row < p.tokens && column < p.size)
                *reinterpret_cast<u32 *>(rows_of(out, at, p) + row * row_stride(p) + column) =
                    pack_bf16(sum[n][2 * half] * inverse[half], sum[n][2 * half + 1] * inverse[half]);
        }
}
