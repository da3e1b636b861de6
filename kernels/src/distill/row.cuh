// A row that belongs to a block, four neighbouring elements at a time or one, and division by a temperature.
#pragma once

#include "common/few.cuh"
#include "common/number.cuh"
#include "common/reduce.cuh"

constexpr int MAX_WARPS = 32;
#define INF __uint_as_float(0x7f800000u)
#define NOT_A_NUMBER __uint_as_float(0x7fffffffu)

// W elements: as one access where `aligned`, else one by one.
template <int W, typename T> __device__ __forceinline__ void load_row(const T *at, float (&v)[W], bool aligned) {
    if constexpr (W == 4) {
        if (aligned) return load_few(at, v);
    }
#pragma unroll
    for (int i = 0; i < W; i++) v[i] = to_float(at[i]);
}

template <int W> __device__ __forceinline__ void store_row(float *at, const float (&v)[W], bool aligned) {
    if constexpr (W == 4) {
        if (aligned) return store_few(at, v);
    }
#pragma unroll
    for (int i = 0; i < W; i++) at[i] = v[i];
}

// x / t, rounded correctly, by the rounded 1 / t and one correction. NaN for a temperature that is not positive.
struct Temperature {
    float t, inverse;
    __device__ explicit Temperature(Number number) : t(number.get()), inverse(1.0f / t) {
        if (!(t > 0.0f)) t = inverse = NOT_A_NUMBER;
    }
    __device__ __forceinline__ float under(float x) const {
        const float q = x * inverse;
        return fabsf(q) < INF ? __fmaf_rn(__fmaf_rn(-q, t, x), inverse, q) : q;
    }
};

// The block's sum and maximum, in every thread, over blockDim.x / 32 warps. `part` has MAX_WARPS elements.
__device__ __forceinline__ float row_sum(float x, float *part) {
    x = warp_sum(x);
    __syncthreads(); // whoever still reads part from an earlier call is done
    if (lane_id() == 0) part[warp_id()] = x;
    __syncthreads(); // part is written
    return warp_sum(lane_id() < int(blockDim.x / 32) ? part[lane_id()] : 0.0f);
}
__device__ __forceinline__ float row_max(float x, float *part) {
    x = warp_max(x);
    __syncthreads(); // whoever still reads part from an earlier call is done
    if (lane_id() == 0) part[warp_id()] = x;
    __syncthreads(); // part is written
    return warp_max(lane_id() < int(blockDim.x / 32) ? part[lane_id()] : -INF);
}
