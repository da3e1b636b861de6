// From a block's sums on tensor cores to the result: a warp's fragments are scattered over rows, so the tile goes through
// shared memory, from where neighbouring threads store neighbouring packs of 16 bytes.
#pragma once

#include "common/mma_tile.cuh"
#include "common/parts.cuh"

// Whether a lane's columns of the result are four neighbouring ones of four mma, as common/tf32_tile.cuh says; and rows.
#if defined(ELEMENT_F32)
constexpr bool COLUMNS_IN_FOURS = !B_BY_STEPS, ROWS_IN_FOURS = !A_BY_STEPS;
#else
constexpr bool COLUMNS_IN_FOURS = false, ROWS_IN_FOURS = false;
#endif

// A row of the tile in shared memory. The unused elements behind it put the rows of a fragment into different banks.
constexpr int STAGED_ROW = TILE_N + (COLUMNS_IN_FOURS ? 4 : 8);
template <typename T> constexpr u32 staged_bytes = TILE_M * STAGED_ROW * sizeof(T);
static_assert(staged_bytes<float> <= LOOP_BYTES, "the tile lies where the operands' tiles were");

// Room that a kernel has in all, behind which there is more only where it says so: for the loop, or for a tile of bf16 and the
// numbers of common/mma_statistics.cuh behind what start_copies() writes meanwhile.
constexpr u32 STORED_END = STARTED_BYTES + staged_bytes<bf16> + THREADS * 8 * 4;
constexpr u32 ROOM_BYTES = STORED_END > LOOP_BYTES ? STORED_END : LOOP_BYTES;

__device__ __forceinline__ void store_pair(float *at, float low, float high) {
    *reinterpret_cast<float2 *>(at) = make_float2(low, high);
}
__device__ __forceinline__ void store_pair(bf16 *at, float low, float high) {
    *reinterpret_cast<u32 *>(at) = pack_bf16(low, high);
}

// The sums of four neighbouring columns that four mma computed, (+ terms), to `tile` as stage() has it.
__device__ __forceinline__ void stage_fours(const Sums &sums, const float *terms, float *tile) {
    const u32 lane = threadIdx.x % 32, row = warp_row() + lane / 4, column = warp_column() + 8 * (lane % 4);
#pragma unroll
    for (int j = 0; j < TILES_N; j += 4) {
#pragma unroll
        for (int next = 0; next < 2; next++) { // the lane's two columns in each mma
            const u32 first = column + 8 * j + 4 * next;
            float term[4] = {};
            if (terms) load_pack(terms + first, term);
#pragma unroll
            for (int i = 0; i < 2 * OWN_M; i++) {
                const int element = i % 2 * 2 + next;
                float v[4];
#pragma unroll
                for (int e = 0; e < 4; e++) v[e] = sums[i / 2][j + e][element] + term[e];
                store_pack(tile + (row + 8 * i) * STAGED_ROW + first, v);
            }
        }
    }
}

// The row of the result that row `row` of the staged tile is.
__device__ __forceinline__ u32 result_row(u32 row) {
    return ROWS_IN_FOURS ? row / 32 * 32 + row % 8 * 4 + row / 8 % 4 : row;
}

#if defined(WGMMA)
// The same of bf16, by matrices.
__device__ __forceinline__ void stage_matrices(const Sums &sums, const float *terms, bf16 *tile) {
    const u32 lane = threadIdx.x % 32, column = 2 * (lane % 4);
    // Lanes give the rows of the matrices: the upper and lower eight rows of eight columns, then of the next.
    const u32 at = shared_address(tile + (warp_row() + lane % 16) * STAGED_ROW + lane / 16 * 8);
#pragma unroll
    for (int j = 0; j < TILES_N; j += 2) {
        u32 words[4];
#pragma unroll
        for (int next = 0; next < 2; next++) {
            const float(&v)[4] = sums[0][j + next];
            float low = 0.0f, high = 0.0f;
            if (terms) low = terms[column + 8 * (j + next)], high = terms[column + 8 * (j + next) + 1];
            words[2 * next] = pack_bf16(v[0] + low, v[1] + high);
            words[2 * next + 1] = pack_bf16(v[2] + low, v[3] + high);
        }
        store_matrices(at + j * 8 * sizeof(bf16), words);
    }
}
#endif

// Sums (+ terms of the columns: [TILE_N] in shared memory or null), each rounded once, to `tile`: [TILE_M][STAGED_ROW].
template <typename T> __device__ __forceinline__ void stage(const Sums &sums, const float *terms, T *tile) {
    if constexpr (COLUMNS_IN_FOURS) return stage_fours(sums, terms, tile);
#if defined(WGMMA)
    if constexpr (sizeof(T) == sizeof(bf16)) return stage_matrices(sums, terms, tile);
#endif
    const u32 lane = threadIdx.x % 32, row = warp_row() + lane / 4, column = warp_column() + 2 * (lane % 4);
#pragma unroll
    for (int j = 0; j < TILES_N; j++) {
        float low = 0.0f, high = 0.0f;
        if (terms) low = terms[column + 8 * j], high = terms[column + 8 * j + 1];
#pragma unroll
        for (int i = 0; i < OWN_M; i++) {
            T *at = tile + (row + 16 * i) * STAGED_ROW + column + 8 * j;
            store_pair(at, sums[i][j][0] + low, sums[i][j][1] + high);
            store_pair(at + 8 * STAGED_ROW, sums[i][j][2] + low, sums[i][j][3] + high);
        }
    }
}

// Calls f(row, column, elements) for every pack of the tile that this thread stores: where it is in the tile, and its 16
// bytes.
template <typename T, typename F> __device__ __forceinline__ void over_tile(const T *tile, F f) {
    constexpr int WIDTH = TILE_N / per_pack<T>;
    static_assert(TILE_M * WIDTH % THREADS == 0, "every thread has the same number of packs");
#pragma unroll 4
    for (int i = threadIdx.x; i < TILE_M * WIDTH; i += THREADS) {
        const u32 row = i / WIDTH, column = i % WIDTH * per_pack<T>;
        f(row, column, *reinterpret_cast<const uint4 *>(tile + row * STAGED_ROW + column));
    }
}

// Stores the elements of a pack that lie before `count`; all in one access where `together` says that addresses are
// aligned and counts are multiples of a pack.
__device__ __forceinline__ void store_pack_of(bf16 *at, i32 count, bool together, uint4 bits) {
    if (together) return store_bits(at, bits);
    const u32 words[4] = {bits.x, bits.y, bits.z, bits.w};
#pragma unroll
    for (int i = 0; i < 8; i++)
        if (i < count) at[i].bits = u16(words[i / 2] >> 16 * (i % 2));
}
__device__ __forceinline__ void store_pack_of(float *at, i32 count, bool together, uint4 bits) {
    if (together) return store_bits(at, bits);
    const u32 words[4] = {bits.x, bits.y, bits.z, bits.w};
#pragma unroll
    for (int i = 0; i < 4; i++)
        if (i < count) at[i] = __uint_as_float(words[i]);
}

// Stores the tile's rows, each at `place(row)` elements of `to`, or nowhere where that is negative: columns from `first_n` on,
// of `columns`.
template <typename T, typename F>
__device__ __forceinline__ void store_rows(const T *tile, T *to, u32 first_n, u32 columns, bool together, F place) {
    over_tile(tile, [&](u32 row, u32 column, uint4 bits) {
        column += first_n;
        if (column >= columns) return;
        const i64 at = place(row);
        if (at >= 0) store_pack_of(to + at + column, columns - column, together, bits);
    });
}
