// Scalar functions with the formulas of the CPU's kernels/src/math.rs: both devices round alike where the compiler
// does not contract.
#pragma once

#include "common/element.cuh"

// The larger; NaN if one is.
__device__ __forceinline__ float max_nan(float a, float b) { return a != a ? a : (b != b ? b : fmaxf(a, b)); }

// The normal distribution function, with CUDA's erff (2 units in the last place).
__device__ __forceinline__ float normal_cdf(float x) { return 0.5f + 0.5f * erff(x * 0.70710678118654752f); }

// The derivative of tanh, 4 e / (1 + e)^2 with e = exp(-2 |x|): 1 - tanh(x)^2 would cancel.
__device__ __forceinline__ float tanh_slope(float x) {
    const float e = expf(-2.0f * fabsf(x));
    return 4.0f * e / ((1.0f + e) * (1.0f + e));
}

// The standard normal density e^(-x^2/2) / sqrt(2 pi).
__device__ __forceinline__ float normal_density(float x) { return expf(-0.5f * x * x) * 0.3989422804014327f; }
