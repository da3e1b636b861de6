// The loop that every matrix product and convolution runs: the sums of a tile of the result, in float32.
//
// A block computes TILE_M x TILE_N sums over a range of steps k. Operand A has TILE_M rows, operand B has TILE_N, and
// a row holds its element of every step. Each thread keeps PER_M x PER_N sums in registers. While the block multiplies
// one tile of TILE_K steps in shared memory, its threads carry the next from global memory in registers: 64 bytes of
// each row, as four packs of 16. Both operands are in float32 in shared memory, whatever their type. A sum takes its
// products in the order of k: the same bits every time.
//
// Defines: TILE_M and TILE_N, each 16 or 64.
#pragma once

#include "common/divisor.cuh"
#include "common/few.cuh"

constexpr int PACKS = 4;              // of 16 bytes, that a row has in a tile
constexpr int TILE_K = PACKS * PACK;  // 16 steps of f32, 32 of bf16
constexpr int PER_M = 4;
constexpr int PER_N = TILE_M * TILE_N <= 256 ? 2 : 4;
constexpr int THREADS_N = TILE_N / PER_N;
constexpr int THREADS = TILE_M / PER_M * THREADS_N;

// An operand's tile in shared memory: step k is outer, and GAP floats are left free behind every PACK steps. So the
// threads of a warp, which hold the four packs of eight rows, write 32 different banks.
constexpr int GAP = 8;
template <int ROWS> constexpr int tile_floats = TILE_K * ROWS + PACKS * GAP;
template <int ROWS> __device__ __forceinline__ u32 tile_at(u32 k, u32 row) { return k * ROWS + k / PACK * GAP + row; }

// What a thread carries of an operand's next tile: COUNT packs, which lie along k or along the rows.
template <int ROWS> struct Staged {
    static constexpr int COUNT = ROWS * PACKS / THREADS;
    float v[COUNT][PACK];

    // Along k: pack j is of row row_of(j), steps from first_step() on.
    static constexpr u32 ROW_JUMP = THREADS / PACKS;
    static __device__ __forceinline__ u32 row_of(int j) { return threadIdx.x / PACKS + j * ROW_JUMP; }
    static __device__ __forceinline__ u32 first_step() { return threadIdx.x % PACKS * PACK; }

    // Along the rows: pack j is of step step_of(j), rows from first_row() on.
    static constexpr u32 WIDTH = ROWS / PACK;
    static constexpr u32 STEP_JUMP = THREADS / WIDTH;
    static __device__ __forceinline__ u32 step_of(int j) { return threadIdx.x / WIDTH + j * STEP_JUMP; }
    static __device__ __forceinline__ u32 first_row() { return threadIdx.x % WIDTH * PACK; }

    __device__ __forceinline__ void store_along_k(float *tile) const {
#pragma unroll
        for (int j = 0; j < COUNT; j++)
#pragma unroll
            for (int i = 0; i < PACK; i++) tile[tile_at<ROWS>(first_step(), row_of(j)) + i * ROWS] = v[j][i];
    }

    __device__ __forceinline__ void store_along_rows(float *tile) const {
        // Eight packs of eight floats would meet in the banks: the upper four write their second half first.
        const bool swap = PACK == 8 && (threadIdx.x & 4);
#pragma unroll
        for (int j = 0; j < COUNT; j++) {
            float4 *to = reinterpret_cast<float4 *>(tile + tile_at<ROWS>(step_of(j), first_row()));
            float4 low = make_float4(v[j][0], v[j][1], v[j][2], v[j][3]);
            if (PACK == 4) {
                *to = low;
            } else {
                float4 high = make_float4(v[j][PACK - 4], v[j][PACK - 3], v[j][PACK - 2], v[j][PACK - 1]);
                to[swap] = swap ? high : low;
                to[!swap] = swap ? low : high;
            }
        }
    }
};

// Where this thread's sums lie in the block's tile.
__device__ __forceinline__ u32 sums_row() { return threadIdx.x / THREADS_N * PER_M; }
__device__ __forceinline__ u32 sums_column() { return threadIdx.x % THREADS_N * PER_N; }

// Adds the products of `packs` packs of steps.
__device__ __forceinline__ void accumulate(const float *a, const float *b, u32 packs, float (&sums)[PER_M][PER_N]) {
    a += sums_row();
    b += sums_column();
#pragma unroll 1
    for (u32 pack = 0; pack < packs; pack++) {
#pragma unroll
        for (int k = 0; k < PACK; k++) {
            float x[PER_M], y[PER_N];
            load_few(a + k * TILE_M, x);
            load_few(b + k * TILE_N, y);
#pragma unroll
            for (int i = 0; i < PER_M; i++)
#pragma unroll
                for (int j = 0; j < PER_N; j++) sums[i][j] = fmaf(x[i], y[j], sums[i][j]);
        }
        a += PACK * TILE_M + GAP;
        b += PACK * TILE_N + GAP;
    }
}

// Adds the products of `length` steps. An operand has load(), which reads a tile's packs to registers, with zeros for
// what is outside; store(tile), which puts them into shared memory; and advance(), which goes on by TILE_K steps.
template <typename A, typename B>
__device__ __forceinline__ void multiply(A &a, B &b, u32 length, float (&sums)[PER_M][PER_N]) {
    __shared__ __align__(16) float tile_a[2][tile_floats<TILE_M>]; // [buffer][TILE_K][TILE_M], with gaps
    __shared__ __align__(16) float tile_b[2][tile_floats<TILE_N>]; // [buffer][TILE_K][TILE_N], with gaps
    if (length == 0) return;
    a.load();
    b.load();
    a.store(tile_a[0]);
    b.store(tile_b[0]);
    for (u32 buffer = 0;; buffer ^= 1) {
        // This buffer is written, and nobody reads the other one any more, which is written below.
        __syncthreads();
        const bool more = length > TILE_K;
        if (more) {
            a.advance();
            b.advance();
            a.load();
            b.load();
        }
        accumulate(tile_a[buffer], tile_b[buffer], more ? PACKS : (length + PACK - 1) / PACK, sums);
        if (!more) return;
        a.store(tile_a[buffer ^ 1]);
        b.store(tile_b[buffer ^ 1]);
        length -= TILE_K;
    }
}

// How a matrix lies in memory: one direction is contiguous, `stride` elements lead on in the other.
struct Matrix {
    u64 stride;
    u32 along_k; // whether the steps k are contiguous, rather than the rows
    u32 packs;   // whether every 16 bytes of the contiguous direction are aligned and whole
};

// A matrix as an operand: ROWS rows from `first_row` on, steps k from `first_k` to `end_k`.
template <int ROWS> struct MatrixOperand {
    using Packs = Staged<ROWS>;
    Packs staged;
    const element *at;     // pack 0
    u64 jump, step;        // elements from a pack to the next, and from a tile to the next
    u32 outer, outer_end;  // the index that is not contiguous, of pack 0
    u32 inner, inner_end;  // the contiguous index, of each pack's first element
    u32 outer_jump;
    bool along_k, packs;

    __device__ __forceinline__ MatrixOperand(
        const element *base, Matrix matrix, u32 first_row, u32 rows, u32 first_k, u32 end_k
    ) {
        along_k = matrix.along_k, packs = matrix.packs;
        outer = along_k ? first_row + Packs::row_of(0) : first_k + Packs::step_of(0);
        inner = along_k ? first_k + Packs::first_step() : first_row + Packs::first_row();
        outer_end = along_k ? rows : end_k;
        inner_end = along_k ? end_k : rows;
        outer_jump = along_k ? Packs::ROW_JUMP : Packs::STEP_JUMP;
        at = base + outer * matrix.stride + inner;
        jump = outer_jump * matrix.stride;
        step = along_k ? TILE_K : TILE_K * matrix.stride;
    }

    __device__ __forceinline__ void load() {
#pragma unroll
        for (int j = 0; j < Packs::COUNT; j++) {
            const bool inside = outer + j * outer_jump < outer_end;
            const element *from = at + j * jump;
            if (packs) {
#pragma unroll
                for (int i = 0; i < PACK; i++) staged.v[j][i] = 0.0f;
                if (inside && inner < inner_end) load_pack(from, staged.v[j]);
            } else {
#pragma unroll
                for (int i = 0; i < PACK; i++)
                    staged.v[j][i] = inside && inner + i < inner_end ? to_float(from[i]) : 0.0f;
            }
        }
    }

    __device__ __forceinline__ void store(float *tile) const {
        if (along_k)
            staged.store_along_k(tile);
        else
            staged.store_along_rows(tile);
    }

    __device__ __forceinline__ void advance() {
        at += step;
        if (along_k)
            inner += TILE_K;
        else
            outer += TILE_K;
    }
};

// Stores a row of this thread's sums from `column` on, as far as the result's `columns` go; in one access where
// `together` says that columns are a multiple of PER_N and rows are aligned. `row`: the result's row.
template <typename T>
__device__ __forceinline__ void store_row(T *row, u32 column, u32 columns, bool together, const float (&v)[PER_N]) {
    if (together) {
        if (column < columns) store_few(row + column, v);
        return;
    }
#pragma unroll
    for (int j = 0; j < PER_N; j++)
        if (column + j < columns) from_float(v[j], row[column + j]);
}

// ENTRY with the tile's size: TILED(matmul) is matmul_64x64_f32.
#define TILED(name) TILED_OF(name, TILE_M, TILE_N)
#define TILED_OF(name, m, n) TILED_AS(name, m, n)
#define TILED_AS(name, m, n) ENTRY(name##_##m##x##n)
