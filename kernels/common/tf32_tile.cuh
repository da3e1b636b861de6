// What is different in common/mma_tile.cuh where operands are float32 and tensor cores take their first 10 fraction bits.
//
// Fragments hold a word a step. Along k, ldmatrix moves four words where it moves eight halves of bf16. It cannot turn
// words, so of an operand along the rows a lane reads packs of four neighbouring rows of its step: those with the numbers
// lane / 4 and lane / 4 + 8 among the packs of the warp's rows. Which rows of the operand are those of which mma is free
// as long as the result is put where it belongs: value e of pack p is row 32 p + 4 (lane / 4) + e, and is taken for row
// lane / 4 of the 8 rows with number 4 p + e.
#pragma once

template <int ROWS, bool IS_B> struct Fragments<ROWS, false, IS_B> {
    u32 offset; // bytes to this lane's first pack

    __device__ __forceinline__ Fragments(u32 first_row) {
        const u32 lane = threadIdx.x % 32;
        offset = 16 * swizzled_words<ROWS / 4>(lane % 4, first_row / 4 + lane / 4);
    }

    __device__ __forceinline__ void skip(u32 k) { offset += 8 * k * 4 * ROWS; }

    // As for other operands; r[i][0] and r[i][2] are of steps lane % 4 and lane % 4 + 4 and of the first 8 rows, in B r[i][0]
    // and r[i][1].
    template <int COUNT> __device__ __forceinline__ void load(u32 tile, int k, u32 (&r)[COUNT][4]) const {
        static_assert(COUNT % 2 == 0, "a lane's packs of a step are the rows of two mma");
        constexpr int SECOND_ROWS = IS_B ? 2 : 1, SECOND_STEPS = IS_B ? 1 : 2;
#pragma unroll
        for (int half = 0; half < 2; half++)
#pragma unroll
            for (int p = 0; p < COUNT / 2; p++) {
                u32 v[4];
                load_words(tile + offset + (8 * k + 4 * half) * 4 * ROWS + 128 * p, v);
#pragma unroll
                for (int e = 0; e < 4; e++) r[2 * p + e / 2][e % 2 * SECOND_ROWS + half * SECOND_STEPS] = v[e];
            }
    }
};

__device__ __forceinline__ void multiply_add(float (&d)[4], const u32 (&a)[4], u32 b0, u32 b1) {
    mma_tf32(d, a, b0, b1);
}

// Rounds what was loaded to the nearest, ties away from zero, by one addition a word: tensor cores ignore what is behind the
// first 10 fraction bits, so half a unit of the last that counts is added and nothing is cut. As the carry goes to the
// exponent, what is too large becomes infinity. Only NaN may be lost, to zero: that of all ones, for one. `seen`, a sum of
// products of neighbouring words, has seen them all at half an instruction a word; if it is not finite in the end, there was
// NaN, infinity or a product beyond float32, and the block computes its tile once more: common/tf32_again.cuh.
struct Rounding {
    float seen = 0.0f;
    __device__ __forceinline__ void round(u32 (&r)[4]) {
        constexpr u32 HALF_A_UNIT = 1u << 12;
        seen = fmaf(__uint_as_float(r[0]), __uint_as_float(r[1]), seen);
        seen = fmaf(__uint_as_float(r[2]), __uint_as_float(r[3]), seen);
#pragma unroll
        for (int j = 0; j < 4; j++) r[j] += HALF_A_UNIT;
    }
    // A barrier of the block. Whether no NaN was lost to any of its threads.
    __device__ __forceinline__ bool finish() const {
        return __syncthreads_and(fabsf(seen) < __uint_as_float(0x7f800000u));
    }
};
