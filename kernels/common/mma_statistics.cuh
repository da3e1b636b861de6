// Beside a product's result: sums of its columns, from which batch normalisation has mean and variance without reading the
// result again.
//
// They are of the tile's elements as they are stored, rounded to bf16, which are what is normalised. Squares are taken
// about the tile's own mean, so that nothing cancels. A thread has the 8 columns of a pack and every ROW_GROUPS-th row:
// it reads its part of the tile, which lies in shared memory anyway, once for the sums and once for the squares. Sums
// over the groups have a fixed order.
#pragma once

#include "common/mma_result.cuh"

constexpr int PACKS_ACROSS = TILE_N / 8;
constexpr int ROW_GROUPS = THREADS / PACKS_ACROSS;
static_assert(THREADS % PACKS_ACROSS == 0 && TILE_M % ROW_GROUPS == 0, "threads have columns of their own");

// Behind the staged tile: a number of each group and column for the sums, later for the squares. The lower four columns
// of all packs lie before the upper four, so that the 16 bytes of neighbouring threads are neighbours.
static_assert(ROW_GROUPS * TILE_N == THREADS * 8, "groups' numbers have the room that ROOM_BYTES counts");

// Adds up `mine`, a number of each column of this thread's pack, over the groups, in order. Every thread of the block
// calls it and has the sums of its columns afterwards.
__device__ __forceinline__ void sum_groups(float *room, const float (&mine)[8], float (&sum)[8]) {
    float4 *at = reinterpret_cast<float4 *>(room) + threadIdx.x % PACKS_ACROSS;
    float4 *own = at + threadIdx.x / PACKS_ACROSS * 2 * PACKS_ACROSS;
    own[0] = make_float4(mine[0], mine[1], mine[2], mine[3]);
    own[PACKS_ACROSS] = make_float4(mine[4], mine[5], mine[6], mine[7]);
    __syncthreads(); // every group's numbers are written
#pragma unroll
    for (int i = 0; i < 8; i++) sum[i] = 0.0f;
#pragma unroll
    for (int group = 0; group < ROW_GROUPS; group++) {
        const float4 low = at[2 * group * PACKS_ACROSS], high = at[(2 * group + 1) * PACKS_ACROSS];
        sum[0] += low.x, sum[1] += low.y, sum[2] += low.z, sum[3] += low.w;
        sum[4] += high.x, sum[5] += high.y, sum[6] += high.z, sum[7] += high.w;
    }
}

// Calls f(the 8 elements) for this thread's pack of every row of its group before row `rows`; `packs`: of row 0.
template <typename F> __device__ __forceinline__ void over_rows(const bf16 *packs, u32 group, u32 rows, F f) {
#pragma unroll 4
    for (u32 row = group; row < rows; row += ROW_GROUPS) {
        float v[8];
        unpack(*reinterpret_cast<const uint4 *>(packs + row * STAGED_ROW), v);
        f(v);
    }
}

// The sums, then the squares about the mean, of the first `rows` rows (at least one) of the tile, which is written, to
// `to`: [2][columns]. `columns` is a multiple of 8. Every thread of the block calls it.
__device__ __forceinline__ void store_statistics(bf16 *tile, u32 rows, u32 first_n, u32 columns, float *to) {
    const u32 place = threadIdx.x % PACKS_ACROSS, group = threadIdx.x / PACKS_ACROSS;
    float *room = reinterpret_cast<float *>(tile + TILE_M * STAGED_ROW);
    const bf16 *packs = tile + 8 * place;
    float part[8] = {}, sum[8], mean[8], squares[8];
    over_rows(packs, group, rows, [&](const float(&v)[8]) {
#pragma unroll
        for (int i = 0; i < 8; i++) part[i] += v[i];
    });
    sum_groups(room, part, sum);
#pragma unroll
    for (int i = 0; i < 8; i++) mean[i] = sum[i] / float(rows), part[i] = 0.0f;
    over_rows(packs, group, rows, [&](const float(&v)[8]) {
#pragma unroll
        for (int i = 0; i < 8; i++) part[i] += (v[i] - mean[i]) * (v[i] - mean[i]);
    });
    __syncthreads(); // the sums are read
    sum_groups(room, part, squares);
    const u32 column = first_n + 8 * place;
    if (group > 0 || column >= columns) return;
    const auto store = [&](float *at, const float(&v)[8]) {
        const float low[4] = {v[0], v[1], v[2], v[3]}, high[4] = {v[4], v[5], v[6], v[7]};
        store_bits(at, pack(low));
        store_bits(at + 4, pack(high));
    };
    store(to + column, sum);
    store(to + columns + column, squares);
}
