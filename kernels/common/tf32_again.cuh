// The sums of common/mma_tile.cuh in tf32 once more, where an operand has a NaN that its quick rounding may have lost
// (common/tf32_tile.cuh). Few blocks ever come here, so that this loop is short instead of fast: a tile is copied, waited
// for and multiplied, a quarter of its steps at a time. Products are added in the same order: what is no NaN has the same
// bits as before.
#pragma once

// Rounds what was loaded. NaN stays one by the bits that tensor cores look at.
struct CarefulRounding {
    __device__ __forceinline__ void round(u32 (&r)[4]) {
#pragma unroll
        for (int j = 0; j < 4; j++) {
            const float x = __uint_as_float(r[j]);
            r[j] = isnan(x) ? 0x7fc00000u : to_tf32(x);
        }
    }
};

// As multiply(), with operands at their beginning, but all of the sums and not only what is added to them.
template <bool A_ALONG_K, bool B_ALONG_K, typename A, typename B>
__device__ __forceinline__ void multiply_again(A &a, B &b, u32 steps, u32 shared, Sums &sums) {
    constexpr bool SLICED = SLICES > 1;
    const Fragments<TILE_M, A_ALONG_K, false> left(SLICED ? 0 : warp_row());
    const Fragments<TILE_N, B_ALONG_K, true> right(SLICED ? 0 : warp_column());
    CarefulRounding rounding;
    NoRowSums nothing;
    const int first = SLICED ? slice_of_warp() : 0, end = SLICED ? first + 1 : TILE_K / 8;
#pragma unroll
    for (int i = 0; i < TILES_M; i++)
#pragma unroll
        for (int j = 0; j < TILES_N; j++)
#pragma unroll
            for (int e = 0; e < 4; e++) sums[i][j][e] = 0.0f;
#pragma unroll 1
    for (; steps > 0; steps--) {
        a.copy(shared, 0, A::COUNT, true), b.copy(shared + A_BYTES, 0, B::COUNT, true);
        a.advance(), b.advance();
        copy_commit();
        copy_wait<0>();
        __syncthreads(); // the tile is there
#pragma unroll 1
        for (int k = first; k < end; k++) {
            u32 x[TILES_M][4], y[TILES_N / 2][4];
            left.load(shared, k, x), right.load(shared + A_BYTES, k, y);
            multiply_fragments(x, y, sums, nothing, rounding);
        }
        __syncthreads(); // all warps have read it
    }
    if (SLICED) add_slices(sums, shared);
}
