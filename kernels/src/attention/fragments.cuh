// Softmax and result of the bf16 attention kernels on tensor cores, on tiles of vectors (common/vector_tiles.cuh).
#pragma once

#define VECTOR HEAD
#include "attention/problem.cuh"
#include "common/vector_tiles.cuh"

// One unit in the last place off at most, and no slow path: x is 1 or more, or NaN.
__device__ __forceinline__ float reciprocal(float x) {
    float y;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

// A softmax whose exponentials are powers of two. It runs over raw scores s, of which |scale| s decides: a negative
// scale changes the queries' signs first. Equal scores have the same bits everywhere: where one dominates, its weight
// is exactly 1.
struct Softmax {
    float scale;  // |scale|, not 0: with 0 what is masked, minus infinity, would become NaN
    float factor; // the same times log2 e
    u32 signs;    // flips the signs of two elements where the scale is negative
    __device__ __forceinline__ explicit Softmax(float of) {
        scale = fmaxf(fabsf(of), 1e-30f), factor = scale * LOG2_E, signs = of < 0.0f ? 0x80008000u : 0;
    }
    __device__ __forceinline__ void orient(Operand &query) const {
#pragma unroll
        for (int step = 0; step < STEPS; step++)
#pragma unroll
            for (int i = 0; i < 4; i++) query[step][i] ^= signs;
    }
    // What is subtracted from exponents. Scores of nothing but minus infinity have weight 0, not NaN.
    __device__ __forceinline__ float shift(float largest) const {
        return largest == -INFINITE ? 0.0f : __fmul_rn(largest, factor);
    }
    __device__ __forceinline__ float weight(float score, float shift) const {
        return exp2_fast(__fadd_rn(__fmul_rn(score, factor), -shift));
    }
};

// Ends a row's softmax: lse (in both rows' lanes 0 and 1) and what the sums are to be multiplied with.
// largest: of the raw scores; total: of the row's weights.
__device__ __forceinline__ void finish_rows(const float (&largest)[2], const float (&total)[2], const Softmax &softmax,
                                            bool wrong, float *lse, u32 first, u32 end, float (&inverse)[2]) {
    float log_sum[2];
    const float none = wrong ? NOT_A_NUMBER : 0.0f;
#pragma unroll
    for (int half = 0; half < 2; half++) {
        const float all = row_sum(total[half]);
        // Scaled as backward scales scores, not by way of log2.
        log_sum[half] = all == 0.0f ? none - INFINITE : __fmul_rn(largest[half], softmax.scale) + logf(all);
        inverse[half] = all == 0.0f ? none : reciprocal(all);
    }
    // One request for all 16: lane 0 of a row's four has the upper row, lane 1 the lower one.
    const int half = lane_id() & 1;
    const u32 row = first + own_group() + 8 * half;
    if (lane_id() % 4 < 2 && row < end) lse[row] = half ? log_sum[1] : log_sum[0];
}
