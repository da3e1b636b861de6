// What forward and backward of the bf16 attention kernels on tensor cores share, on tiles of vectors
// (common/vector_tiles.cuh).
#pragma once

#define VECTOR HEAD
#include "attention/problem.cuh"
#include "common/vector_tiles.cuh"

// The same problem, of which the compiler does not know it: what is made of it is made again, where registers are too
// few to keep it.
__device__ __forceinline__ Problem again(Problem p) {
    asm volatile("" : "+r"(p.tokens), "+r"(p.heads), "+r"(p.size));
    return p;
}
// The same for blockIdx.x and the lane's number.
__device__ __forceinline__ u32 block_again() {
    u32 block;
    asm volatile("mov.u32 %0, %%ctaid.x;" : "=r"(block));
    return block;
}
__device__ __forceinline__ u32 lane_again() {
    u32 lane;
    asm volatile("mov.u32 %0, %%laneid;" : "=r"(lane));
    return lane;
}

constexpr float LN_2 = 0.6931471805599453f;

// One unit in the last place off at most, and no slow path: x is normal, or NaN.
__device__ __forceinline__ float reciprocal(float x) {
    float y;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

// Starts the copy of rows first .. first + count - 1 of MATRICES matrices, `apart` elements from each other, to rows 0 ..
// count - 1 of as many tiles, `tiles_apart` bytes from each other; rows from `end` on and components from `size` on
// become zeros. By the threads `thread` of `threads`, which are whole warps. count is a multiple of 8: a warp takes 8
// rows at a time, after which packs are exchanged alike, so that a lane has the same pack of each, and its places are
// made once.
template <int MATRICES = 1>
__device__ __forceinline__ void copy_vectors(u32 tile, const element *rows, u64 stride, u32 first, u32 count, u32 end,
                                             u32 size, u32 thread, u32 threads, u64 apart = 0, u32 tiles_apart = 0) {
    static_assert(PACKS <= 32, "a lane has one pack");
    asm volatile("" : "+r"(thread)); // what is made of it is not kept from one call to the next
    constexpr int APART = 32 / PACKS; // rows of one copy of the warp, which differ in the bits below
    const u32 pack = thread % PACKS, start = thread / 32 * 8, row = start + thread % 32 / PACKS;
    const u64 step = APART * stride, jump = threads / 4 * stride - 8 * stride;
    const element *from = rows + (first + row) * stride + pack * 8;
    u32 to = tile + 16 * swizzled<PACKS>(row, pack);
    int left = pack * 8 < size ? int(end) - int(first + row) : 0; // rows from here to the end
#pragma unroll 1
    for (u32 i = start; i < count; i += threads / 4) {
#pragma unroll
        for (int down = 0; down < 8; down += APART) {
#pragma unroll
            for (int m = 0; m < MATRICES; m++)
                copy_async((to ^ (PACKS < 8 ? 0 : 16 * down)) + down * ROW_BYTES + m * tiles_apart, from + m * apart,
                           left > down ? 16 : 0);
            from += step;
        }
        from += jump, to += threads / 4 * ROW_BYTES, left -= threads / 4;
    }
}

// A softmax whose exponentials are powers of two, 2^(factor s - shift) of raw scores s. Product and difference are
// rounded together: the shift's own error is the same for all of a row.
struct Softmax {
    float factor; // scale log2 e, not 0: with 0 what is hidden, which is infinite, would become NaN
    __device__ __forceinline__ explicit Softmax(float scale) {
        factor = (fabsf(scale) < 1e-30f ? 1e-30f : scale) * LOG2_E;
    }
    // A score that has the weight 0.
    __device__ __forceinline__ float hidden() const {
        return __uint_as_float(0x7f800000u | (~__float_as_uint(factor) & 0x80000000u));
    }
    __device__ __forceinline__ float weight(float score, float shift) const {
        return exp2_fast(fmaf(score, factor, -shift));
    }
};

// The mask's row of a query; of one behind the last, whose results nobody sees, the last one's.
__device__ __forceinline__ const float *mask_row(const Score &score, u32 query) {
    return score.mask + u64(min(query, score.tokens - 1)) * score.tokens;
}
// A product as a score. Forward and backward get the same bits.
__device__ __forceinline__ float masked(float product, const Score &score, float element) {
    return fmaf(product, score.scale, element);
}
