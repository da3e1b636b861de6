// What forward and backward of the bf16 attention kernels on tensor cores share, on tiles of vectors
// (common/vector_tiles.cuh).
#pragma once

#define VECTOR HEAD
#include "attention/problem.cuh"
#include "common/vector_tiles.cuh"

constexpr float LN_2 = 0.6931471805599453f;

// One unit in the last place off at most, and no slow path: x is normal, or NaN.
__device__ __forceinline__ float reciprocal(float x) {
    float y;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

// A softmax whose exponentials are powers of two, 2^(factor s - shift). It runs over raw scores s, of which |scale| s decides: a
// negative scale changes the queries' signs first. Product and difference are rounded together: the shift's own error is the
// same for all of a row.
struct Softmax {
    float factor; // |scale| log2 e, not 0: with 0 what is masked, minus infinity, would become NaN
    u32 signs;    // flips the signs of two elements where the scale is negative
    __device__ __forceinline__ explicit Softmax(float scale) {
        factor = fmaxf(fabsf(scale), 1e-30f) * LOG2_E, signs = scale < 0.0f ? 0x80008000u : 0;
    }
    __device__ __forceinline__ void orient(Operand &query) const {
#pragma unroll
        for (int step = 0; step < STEPS; step++)
#pragma unroll
            for (int i = 0; i < 4; i++) query[step][i] ^= signs;
    }
    __device__ __forceinline__ float weight(float score, float shift) const {
        return exp2_fast(fmaf(score, factor, -shift));
    }
};
