// Vectors in shared memory as tensor-core operands: what kernels are made of that weigh vectors by their inner products.
//
// A file defines VECTOR first, the components that a vector is padded to: a power of two from 32 on. A tile is rows of
// vectors in shared memory, bf16, zeros behind the true size, with the packs of a row swizzled (common/mma.cuh); it
// starts at a multiple of 512 bytes. A warp works on 16 own rows at a time. Of a tile of products [16 own, 16 others] a
// lane holds, with g = lane / 4 and t = lane % 4, the elements s[h][e] of own row g (e = 0, 1) or g + 8 (e = 2, 3) and
// the other's row 8 h + 2 t + e % 2: two results of mma side by side. Rounded to bf16 they are the left operand of the
// product with the others' vectors, without leaving their registers.
#pragma once

#include "common/cp_async.cuh"
#include "common/mma.cuh"
#include "common/parts.cuh"
#include "common/reduce.cuh"

constexpr int PACKS = VECTOR / 8;  // of 16 bytes in a row
constexpr int STEPS = VECTOR / 16; // of a product over the components
constexpr u32 ROW_BYTES = 2 * VECTOR;

// 16 own rows as left operand of products over the components, or 16 rows of sums over others: component 8 n + 2 t + e
// % 2.
typedef u32 Operand[STEPS][4];
typedef float Sums[2 * STEPS][4];

__device__ __forceinline__ int own_group() { return lane_id() / 4; }
__device__ __forceinline__ int own_pair() { return lane_id() % 4 * 2; }

// Starts the copy of rows first .. first + count - 1 of a matrix to the tile's rows 0 .. count - 1; rows from `end` on
// and components from `size` on become zeros. By the threads `thread` of `threads`.
__device__ __forceinline__ void copy_rows(u32 tile, const element *rows, u64 stride, u32 first, u32 count, u32 end,
                                          u32 size, u32 thread, u32 threads) {
    for (u32 i = thread; i < count * PACKS; i += threads) {
        const u32 row = i / PACKS, pack = i % PACKS;
        const bool inside = first + row < end && pack * 8 < size;
        copy_async(tile + 16 * swizzled<PACKS>(row, pack), inside ? rows + (first + row) * stride + pack * 8 : rows,
                   inside ? 16 : 0);
    }
}

__device__ __forceinline__ void store_shared(u32 to, uint4 bits) {
    asm volatile("st.shared.v4.b32 [%0], {%1, %2, %3, %4};" ::"r"(to), "r"(bits.x), "r"(bits.y), "r"(bits.z),
                 "r"(bits.w)
                 : "memory");
}

// A tile as a lane reads it with ldmatrix. Both places are of the tile's first 16 rows and first step; 16 rows further
// are 16 ROW_BYTES further, and a step is in bits that a row has for its packs: `^ 32 * step`.
struct Tile {
    u32 rows;   // as left operand, 16 rows; or transposed as right operand of sums over these rows
    u32 others; // as right operand of products over the components
    Tile() = default;
    __device__ __forceinline__ explicit Tile(u32 tile, u32 lane = lane_id()) {
        rows = tile + 16 * swizzled<PACKS>(lane % 16, lane / 16);
        others = tile + 16 * swizzled<PACKS>(lane % 8 + lane / 16 * 8, lane / 8 % 2);
    }
    // Makes the compiler keep both in registers, where it would rather make them again for each use.
    __device__ __forceinline__ void keep() { asm volatile("" : "+r"(rows), "+r"(others)); }
};

// 16 rows of a tile from `row` on as left operand of one step.
__device__ __forceinline__ void load_step(const Tile &tile, u32 row, int step, u32 (&a)[4]) {
    load_matrices((tile.rows ^ 32 * step) + row * ROW_BYTES, a);
}
__device__ __forceinline__ void load_operand(const Tile &tile, u32 row, Operand &a) {
#pragma unroll
    for (int step = 0; step < STEPS; step++) load_step(tile, row, step, a[step]);
}

// The same rows as right operand. The first two words are of 8 columns of the result, the others of the next 8.
__device__ __forceinline__ void load_others(const Tile &tile, u32 row, int step, u32 (&b)[4]) {
    load_matrices((tile.others ^ 32 * step) + row * ROW_BYTES, b);
}
__device__ __forceinline__ void load_others_transposed(const Tile &tile, u32 row, int step, u32 (&b)[4]) {
    load_matrices_transposed((tile.rows ^ 32 * step) + row * ROW_BYTES, b);
}

// Adds the products of an operand with both halves of a right operand, of 8 columns each.
__device__ __forceinline__ void multiply_halves(float (&low)[4], float (&high)[4], const u32 (&a)[4], const u32 (&b)[4]) {
    mma_bf16(low, a, b[0], b[1]);
    mma_bf16(high, a, b[2], b[3]);
}

// 16 own vectors as left operand: kept in registers, or loaded again each time where there are too few.
template <bool KEPT> struct Own {
    Tile tile;
    u32 row;
    Operand kept;
    __device__ __forceinline__ void load(u32 at, u32 from) {
        tile = Tile(at), row = from;
        if (KEPT) load_operand(tile, row, kept);
    }
    __device__ __forceinline__ void step(int step, u32 (&a)[4]) const {
        if constexpr (KEPT) {
#pragma unroll
            for (int i = 0; i < 4; i++) a[i] = kept[step][i];
        } else {
            load_step(tile, row, step, a);
        }
    }
};

// s[j] += own . other for COUNT times 16 rows of a tile from `row` on. Step by step, so that neighbouring products do not wait
// for each other.
template <int COUNT, bool KEPT>
__device__ __forceinline__ void add_inner(const Own<KEPT> &own, const Tile &tile, u32 row, float (&s)[COUNT][2][4]) {
#pragma unroll
    for (int step = 0; step < STEPS; step++) {
        u32 a[4];
        own.step(step, a);
#pragma unroll
        for (int j = 0; j < COUNT; j++) {
            u32 b[4];
            load_others(tile, row + 16 * j, step, b);
            multiply_halves(s[j][0], s[j][1], a, b);
        }
    }
}

// f(h, e) for each element s[h][e] that a lane has of a tile of products.
template <typename F> __device__ __forceinline__ void over_tile(F f) {
#pragma unroll
    for (int h = 0; h < 2; h++)
#pragma unroll
        for (int e = 0; e < 4; e++) f(h, e);
}

// The weights of 16 others, rounded to bf16, as left operand of weighted_sum.
__device__ __forceinline__ void to_operand(const float (&w)[2][4], u32 (&a)[4]) {
    a[0] = pack_bf16(w[0][0], w[0][1]), a[1] = pack_bf16(w[0][2], w[0][3]);
    a[2] = pack_bf16(w[1][0], w[1][1]), a[3] = pack_bf16(w[1][2], w[1][3]);
}

// sum += weights . others, the 16 rows of a tile from `row` on.
__device__ __forceinline__ void weighted_sum(const u32 (&weights)[4], const Tile &tile, u32 row, Sums &sum) {
#pragma unroll
    for (int step = 0; step < STEPS; step++) {
        u32 b[4];
        load_others_transposed(tile, row, step, b);
        multiply_halves(sum[2 * step], sum[2 * step + 1], weights, b);
    }
}

// The 4 x 4 words of the lanes that share a row, transposed: word i of lane t becomes word t of lane i.
__device__ __forceinline__ void transpose_words(u32 (&w)[4]) {
    const bool odd = lane_id() & 1, upper = lane_id() & 2;
#pragma unroll
    for (int i = 0; i < 4; i += 2) {
        const u32 other = __shfl_xor_sync(ALL_LANES, odd ? w[i] : w[i + 1], 1);
        w[i] = odd ? other : w[i], w[i + 1] = odd ? w[i + 1] : other;
    }
#pragma unroll
    for (int i = 0; i < 2; i++) {
        const u32 other = __shfl_xor_sync(ALL_LANES, upper ? w[i] : w[i + 2], 2);
        w[i] = upper ? other : w[i], w[i + 2] = upper ? w[i + 2] : other;
    }
}

// rows[first + r] = factor[r / 8] sum[r] for the warp's 16 rows r, as far as they are before `end`; the lanes of a row
// exchange words so that each has whole packs. By all lanes of the warp.
__device__ __forceinline__ void store_sums(const Sums &sum, const float (&factor)[2], element *rows, u64 stride,
                                           u32 first, u32 end, u32 size) {
    const u32 column = 8 * (lane_id() % 4);
#pragma unroll
    for (int half = 0; half < 2; half++) {
        const u32 row = first + own_group() + 8 * half;
        element *at = rows + row * stride + column;
#pragma unroll
        for (int n = 0; n < 2 * STEPS; n += 4) {
            u32 w[4];
#pragma unroll
            for (int i = 0; i < 4; i++)
                w[i] = pack_bf16(sum[n + i][2 * half] * factor[half], sum[n + i][2 * half + 1] * factor[half]);
            transpose_words(w);
            if (row < end && column + 8 * n < size) store_bits(at + 8 * n, make_uint4(w[0], w[1], w[2], w[3]));
        }
    }
}

// The lanes that share a row: maximum and sum over them, in each.
__device__ __forceinline__ float row_max(float x) {
    x = fmaxf(x, __shfl_xor_sync(ALL_LANES, x, 1));
    return fmaxf(x, __shfl_xor_sync(ALL_LANES, x, 2));
}
__device__ __forceinline__ float row_sum(float x) {
    x += __shfl_xor_sync(ALL_LANES, x, 1);
    return x + __shfl_xor_sync(ALL_LANES, x, 2);
}

__device__ __forceinline__ float exp2_fast(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

constexpr float LOG2_E = 1.4426950408889634f;
