// What every kernel of NT-Xent is told, and what a row's similarities are made of.
#pragma once

#include "common/element.cuh"
#include "common/reduce.cuh"

#define INF __uint_as_float(0x7f800000u)
#define NOT_A_NUMBER __uint_as_float(0x7fffffffu)

// What does not change over a launch. The host's struct of this name has the same fields.
struct Problem {
    float temperature;
    float inverse;   // 1 / temperature, rounded
    int rows;        // R
    int columns;     // C
    int d;           // D
    int self_offset; // row i does not see column i + this; the least int for none
    u32 aligned;     // every vector starts at a multiple of 16 bytes
};

__device__ __forceinline__ bool hidden(const Problem &p, int row, int column) { return column - row == p.self_offset; }

// Whether a row's positive is a column that the row may see.
__device__ __forceinline__ bool is_valid(const Problem &p, int row, int positive) {
    return positive >= 0 && positive < p.columns && !hidden(p, row, positive);
}

// s / temperature, rounded as a division does (Markstein: one correction of the product with the rounded inverse).
// Forward makes lse with it and backward what lse is subtracted from: where one similarity dominates, the difference is
// exactly zero.
__device__ __forceinline__ float over_temperature(const Problem &p, float s) {
    const float quotient = s * p.inverse;
    return fmaf(fmaf(-quotient, p.temperature, s), p.inverse, quotient);
}

// Inner product of two vectors of d elements by a warp, in every lane.
__device__ __forceinline__ float inner_product(const element *a, const element *b, int d) {
    float sum = 0.0f;
    for (int k = lane_id(); k < d; k += 32) sum = fmaf(to_float(a[k]), to_float(b[k]), sum);
    return warp_sum(sum);
}
