// multiply() of common/mma_tile.cuh on any tensor cores (mma.sync): a warp loads the fragments of its operands and multiplies
// those.
//
// Within a tile the fragments of a quarter of its steps are loaded while those of the quarter before are multiplied. ldmatrix
// turns a tile that lies along the rows; where it cannot, in tf32, see common/tf32_tile.cuh.
#pragma once

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

#include "common/sliced_tile.cuh"

template <typename A, typename B> __device__ __forceinline__ void start_copies(A &, B &, u32) {}

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
