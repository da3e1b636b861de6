// The loop of matrix products on tensor cores: the sums of a tile of the result, in float32, from bf16 operands, or from
// float32 ones that are rounded to tf32 (ELEMENT_F32).
//
// A block computes TILE_M x TILE_N sums, each of its warps WARP_M x WARP_N of them, in steps of TILE_K, 128 bytes of a
// row. Operand A has TILE_M rows, operand B has TILE_N, and a row holds its element of every step. STAGES tiles of each
// operand are in shared memory: while the warps multiply one, copies of the next ones are on the way. Within a tile the
// fragments of a quarter of its steps are loaded while those of the quarter before are multiplied. An operand's tile lies
// in shared memory as it does in global memory, along k or along the rows; ldmatrix turns it where that is needed, and
// where it cannot, in tf32, see common/tf32_tile.cuh. Packs of 16 bytes are exchanged (swizzled) so that no access has a
// bank conflict.
//
// Defines: TILE_M, TILE_N, WARP_M, WARP_N.
#pragma once

#include "common/cp_async.cuh"
#include "common/mma.cuh"

constexpr int TILE_K = 128 / sizeof(element);
constexpr int STAGES = 3;
constexpr int WARPS_N = TILE_N / WARP_N;
constexpr int WARPS = TILE_M / WARP_M * WARPS_N;           // that share out the results
constexpr int SLICES = WARPS == 1 ? 4 : 1;                 // warps that share out the steps: common/sliced_tile.cuh
constexpr int THREADS = 32 * WARPS * SLICES;
constexpr int TILES_M = WARP_M / 16, TILES_N = WARP_N / 8; // mma results of a warp
constexpr int OWN_M = TILES_M / SLICES;                    // rows of mma results that a warp has in the end

constexpr u32 ROW_BYTES = 128;                   // of an operand along k
constexpr u32 A_BYTES = TILE_M * ROW_BYTES;      // of A's tile; B's lies behind it
constexpr u32 STAGE_BYTES = A_BYTES + TILE_N * ROW_BYTES;
constexpr u32 LOOP_BYTES = STAGES * STAGE_BYTES; // of shared memory in all

// What lies along a warp's sums: [mma tile of 16 rows][mma tile of 8 columns][fragment].
typedef float Sums[TILES_M][TILES_N][4];

// Where a warp's results are, after the loop.
__device__ __forceinline__ u32 warp_row() { return threadIdx.x / 32 / WARPS_N * 16 * OWN_M; }
__device__ __forceinline__ u32 warp_column() { return threadIdx.x / 32 % WARPS_N * WARP_N; }
__device__ __forceinline__ u32 slice_of_warp() { return threadIdx.x / 32 / WARPS; }

// How the threads of a block share out the packs of an operand's tile: COUNT each, JUMP rows (along k) or steps (along
// the rows) apart, the first at outer() of those and inner() elements of the contiguous direction.
template <int ROWS, bool ALONG_K> struct Share {
    static constexpr int WIDTH = (ALONG_K ? TILE_K : ROWS) / PACK; // packs of the contiguous direction
    static constexpr int JUMP = THREADS / WIDTH;
    static constexpr int COUNT = ROWS * TILE_K / PACK / THREADS;
    static constexpr u32 JUMP_BYTES = JUMP * WIDTH * 16;
    static constexpr int PERIOD = ALONG_K || PACK == 8 ? 8 : 4; // of the exchange of packs, in the outer direction
    static_assert(JUMP % PERIOD == 0 || 2 * JUMP == PERIOD, "packs of a thread are swizzled alike, or alternate");
    static __device__ __forceinline__ u32 outer() { return threadIdx.x / WIDTH; }
    static __device__ __forceinline__ u32 inner() { return threadIdx.x % WIDTH * PACK; }
    // Bytes from the tile's start to this thread's pack j.
    static __device__ __forceinline__ u32 place(int j) {
        const u32 pack = threadIdx.x % WIDTH;
        const u32 first = 16 * (PERIOD == 8 ? swizzled<WIDTH>(outer(), pack) : swizzled_words<WIDTH>(outer(), pack));
        return (first ^ (2 * JUMP == PERIOD ? 64 * (j % 2) : 0)) + j * JUMP_BYTES;
    }
};

// A matrix as an operand: ROWS rows from `first_row` on, steps k from `first_k` to `end_k`. Its contiguous direction is
// k or the rows; in the other, `stride` elements lead on. Both ends of the contiguous direction, and stride, are
// multiples of a pack, and rows are aligned to 16 bytes. What is outside becomes zero.
template <int ROWS, bool ALONG_K> struct DenseOperand {
    using Packs = Share<ROWS, ALONG_K>;
    static constexpr int COUNT = Packs::COUNT;
    static constexpr u32 ALL_RAGGED = 1u << 30;
    const element *at; // this thread's first pack of the next tile
    u32 stride;
    i32 outer, inner;  // rows and steps from its place in the next tile to the ends: none, where they are not above 0
    u32 ragged;        // tiles of the block that have packs outside: none, the last one, or all

    __device__ __forceinline__ DenseOperand(
        const element *base, u32 stride, u32 first_row, u32 rows, u32 first_k, u32 end_k
    ) : stride(stride) {
        const u32 from = (ALONG_K ? first_row : first_k) + Packs::outer();
        const u32 beside = (ALONG_K ? first_k : first_row) + Packs::inner();
        outer = (ALONG_K ? rows : end_k) - from;
        inner = (ALONG_K ? end_k : rows) - beside;
        if (!ALONG_K && inner <= 0) outer = 0;
        ragged = first_row + ROWS > rows ? ALL_RAGGED : (end_k - first_k) % TILE_K != 0;
        at = base + u64(from) * stride + beside;
    }

    // Copies packs `from` to `to`, which the compiler knows, of the next tile to the tile at `tile` of shared memory,
    // where that is wanted.
    __device__ __forceinline__ void copy(u32 tile, int from, int to, bool wanted) {
        const i32 left = !ALONG_K || inner > 0 ? outer : 0;
#pragma unroll
        for (int j = from; j < to; j++)
            copy_async_if(wanted, tile + Packs::place(j), at + u64(stride) * (j * Packs::JUMP),
                          j * Packs::JUMP < left ? 16 : 0);
    }

    // The same of all packs of a tile that has none outside. `first`: of shared memory, the place of this thread's first.
    __device__ __forceinline__ void copy_whole(u32 first, bool wanted) {
        static_assert(Packs::JUMP % Packs::PERIOD == 0, "packs of a thread are swizzled alike");
        const char *from = reinterpret_cast<const char *>(at);
#pragma unroll
        for (int j = 0; j < COUNT; j++)
            copy_async_if(wanted, first + j * Packs::JUMP_BYTES, from + u64(stride) * u32(j * Packs::JUMP * sizeof(element)));
    }

    // What the compiler has made of the stride and the next tile's address is not to be kept in registers from here on.
    __device__ __forceinline__ void forget() { asm volatile("" : "+l"(at), "+r"(stride)); }

    // Goes on by TILE_K steps, behind the last pack.
    __device__ __forceinline__ void advance() {
        at += ALONG_K ? TILE_K : u64(stride) * TILE_K;
        // An instruction makes the place of a pack from the stride. Of many packs the compiler would keep all distances in
        // registers instead.
        if constexpr (COUNT > 4) asm volatile("" : "+r"(stride));
        if (ALONG_K)
            inner -= TILE_K;
        else
            outer -= TILE_K;
    }
};

// A lane's part in loading the fragments of an operand from its tile. A's come down first, B's along k first; see
// common/mma.cuh.
template <int ROWS, bool ALONG_K, bool IS_B> struct Fragments {
    u32 offset; // bytes to this lane's row of the first 8 x 8 matrix

    __device__ __forceinline__ Fragments(u32 first_row) {
        const u32 lane = threadIdx.x % 32, half = lane / 8 % 2, other = lane / 16;
        const u32 row_half = IS_B ? other : half, k_half = IS_B ? half : other;
        if (ALONG_K)
            offset = 16 * swizzled<TILE_K / PACK>(first_row + 8 * row_half + lane % 8, k_half);
        else
            offset = 16 * swizzled<ROWS / 8>(8 * k_half + lane % 8, first_row / 8 + row_half);
    }

    // Makes the k-th 32 bytes of steps the first.
    __device__ __forceinline__ void skip(u32 k) {
        if (ALONG_K)
            offset ^= 32 * k;
        else
            offset += k * 16 * 2 * ROWS;
    }

    // Of all the warp's rows, 16 from first_row + 16 i on in r[i], the k-th 32 bytes of steps. The bits of the pack that
    // i or k changes are 0 in that of the first, so exclusive or reaches the swizzled place too; tiles start at multiples
    // of 128 bytes.
    template <int COUNT> __device__ __forceinline__ void load(u32 tile, int k, u32 (&r)[COUNT][4]) const {
#pragma unroll
        for (int i = 0; i < COUNT; i++)
            if (ALONG_K)
                load_matrices<false>(((tile + offset) ^ 32 * k) + i * 16 * ROW_BYTES, r[i]);
            else
                load_matrices<true>(((tile + offset) ^ 32 * i) + k * 16 * 2 * ROWS, r[i]);
    }
};

#if defined(ELEMENT_F32)
#include "common/tf32_tile.cuh"
#else
__device__ __forceinline__ void multiply_add(float (&d)[4], const u32 (&a)[4], u32 b0, u32 b1) {
    mma_bf16(d, a, b0, b1);
}
// What happens to fragments before they are multiplied: nothing.
struct Rounding {
    __device__ __forceinline__ void round(u32 (&)[4]) {}
    // A barrier of the block.
    __device__ __forceinline__ bool finish() const {
        __syncthreads();
        return true;
    }
};
#endif

// Nothing beside the sums.
struct NoRowSums {
    __device__ __forceinline__ void add(int, const u32 (&)[4]) {}
    __device__ __forceinline__ void add_slices(u32) {}
};

#if defined(ELEMENT_BF16)
// The sums of A's rows over all steps: products with a matrix of ones. In the end element [i][2 j], with i less than OWN_M,
// is that of row warp_row() + 16 i + 8 j + lane / 4, in all four lanes of it.
struct RowSums {
    float sums[TILES_M][4] = {};
    __device__ __forceinline__ void add(int i, const u32 (&a)[4]) {
        constexpr u32 ONES = 0x3f803f80;
        mma_bf16(sums[i], a, ONES, ONES);
    }

    // Adds the slices' sums, through `shared`, which nobody uses any more.
    __device__ __forceinline__ void add_slices(u32 shared) {
        static_assert(SLICES == 1 || OWN_M == 1, "a warp has one mma tile of rows in the end");
        const u32 lane = threadIdx.x % 32;
#pragma unroll
        for (int i = 0; i < TILES_M; i++)
            if (lane % 4 == 0) store_words(shared + ((slice_of_warp() * TILES_M + i) * 8 + lane / 4) * 16, sums[i]);
        __syncthreads(); // all sums are there
#pragma unroll
        for (int from = 0; from < SLICES; from++) {
            float v[4];
            load_words(shared + ((from * TILES_M + slice_of_warp()) * 8 + lane / 4) * 16, v);
            sums[0][0] = from == 0 ? v[0] : sums[0][0] + v[0];
            sums[0][2] = from == 0 ? v[2] : sums[0][2] + v[2];
        }
        __syncthreads(); // all sums are read
    }
};
#endif

// Adds the products of the fragments of a quarter of a tile.
template <typename Rows, typename Round>
__device__ __forceinline__ void multiply_fragments(
    u32 (&x)[TILES_M][4], u32 (&y)[TILES_N / 2][4], Sums &sums, Rows &rows, Round &rounding
) {
#pragma unroll
    for (int j = 0; j < TILES_N / 2; j++) rounding.round(y[j]);
#pragma unroll
    for (int i = 0; i < TILES_M; i++) {
        rounding.round(x[i]);
#pragma unroll
        for (int j = 0; j < TILES_N; j++) {
            const int column = i % 2 ? TILES_N - 1 - j : j; // back and forth: half of the operands stay
            const u32(&pair)[4] = y[column / 2];
            multiply_add(sums[i][column], x[i], pair[column % 2 * 2], pair[column % 2 * 2 + 1]);
        }
        rows.add(i, x[i]);
    }
}

// What a thread does with the packs that it copied to the tile at `tile`, once they have arrived and before others read
// them: nothing, unless an operand has an overload. The tile that it copies next is `behind` tiles behind that one.
template <typename Operand> __device__ __forceinline__ void arrived(Operand &, u32, int behind) {}

// What operand B does for tiles to come, behind every tile or every second one: nothing, unless it has an overload.
template <typename Operand> __device__ __forceinline__ void look_ahead(Operand &) {}

#include "common/sliced_tile.cuh"

// Adds the products of `steps` tiles of TILE_K steps, at least one. An operand has COUNT packs a thread, copy() and
// advance(), as DenseOperand. `shared`: LOOP_BYTES, aligned to 128. Afterwards nobody uses them any more, and the first
// OWN_M of a warp's rows of sums are those of the rows from warp_row() on. False, to all threads, if the sums have to be
// made again: never of bf16.
template <bool A_ALONG_K, bool B_ALONG_K, typename A, typename B, typename Rows>
__device__ __forceinline__ bool multiply(A &a, B &b, u32 steps, u32 shared, Sums &sums, Rows &rows) {
    if constexpr (SLICES > 1) return multiply_slices<A_ALONG_K, B_ALONG_K>(a, b, steps, shared, sums, rows);
    const Fragments<TILE_M, A_ALONG_K, false> left(warp_row());
    const Fragments<TILE_N, B_ALONG_K, true> right(warp_column());
    constexpr int DEPTH = 4;                // loads of fragments in a tile
    u32 x[2][TILES_M][4], y[2][TILES_N / 2][4];
    Rounding rounding;

    const auto load = [&](u32 stage, int k) { // into one half of x and y, while the other is multiplied
        left.load(stage, k, x[k % 2]);
        right.load(stage + A_BYTES, k, y[k % 2]);
    };
    const u32 end = shared + LOOP_BYTES;
#pragma unroll
    for (int stage = 0; stage < STAGES - 1; stage++) {
        a.copy(shared + stage * STAGE_BYTES, 0, A::COUNT, true);
        b.copy(shared + stage * STAGE_BYTES + A_BYTES, 0, B::COUNT, true);
        a.advance(), b.advance();
        copy_commit();
    }
    u32 read = shared, write = shared + (STAGES - 1) * STAGE_BYTES;
    copy_wait<STAGES - 2>();
    arrived(a, read, STAGES - 1), arrived(b, read + A_BYTES, STAGES - 1);
    __syncthreads(); // everybody's copies of the first stage have arrived
    load(read, 0);
    // The copies are shared out over three quarters of a step.
#pragma unroll 1
    for (; steps > 0; steps--) {
        const bool more = steps > STAGES - 1; // there is a tile to copy
#pragma unroll
        for (int k = 0; k < DEPTH; k++) {
            if (k < 3) {
                a.copy(write, A::COUNT * k / 3, A::COUNT * (k + 1) / 3, more);
                b.copy(write + A_BYTES, B::COUNT * k / 3, B::COUNT * (k + 1) / 3, more);
            } else {
                a.advance(), b.advance();
                copy_commit();
                write = read;
                // Behind the last tile the fragments of this one are loaded again, and not used.
                if (steps > 1) read = read + STAGE_BYTES == end ? shared : read + STAGE_BYTES;
                copy_wait<STAGES - 2>();
                if (steps > 1) arrived(a, read, STAGES - 1), arrived(b, read + A_BYTES, STAGES - 1);
                // The next stage has arrived for everybody, and nobody reads this one any more, which is written next.
                __syncthreads();
            }
            load(read, (k + 1) % DEPTH);
            multiply_fragments(x[k % 2], y[k % 2], sums, rows, rounding);
        }
        look_ahead(b);
    }
    copy_wait<0>();
    return rounding.finish(); // nobody reads or writes a tile any more
}

#if defined(ELEMENT_F32)
#include "common/tf32_again.cuh"
#endif
