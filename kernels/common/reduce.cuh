// Sums and maxima over the lanes of a warp and the warps of a block, always in the same order.
#pragma once

#include "common/element.cuh"

constexpr u32 ALL_LANES = 0xffffffffu;

__device__ __forceinline__ int lane_id() { return threadIdx.x & 31; }
__device__ __forceinline__ int warp_id() { return threadIdx.x >> 5; }

// The sum over a warp, in every lane.
template <typename T> __device__ __forceinline__ T warp_sum(T x) {
#pragma unroll
    for (int step = 16; step > 0; step /= 2) x += __shfl_xor_sync(ALL_LANES, x, step);
    return x;
}

// The maximum over a warp, in every lane. NaN is ignored where there is a number.
__device__ __forceinline__ float warp_max(float x) {
#pragma unroll
    for (int step = 16; step > 0; step /= 2) x = fmaxf(x, __shfl_xor_sync(ALL_LANES, x, step));
    return x;
}

// The sum over a block of WARPS warps (threads in x alone), in every thread. `part` has WARPS elements.
template <int WARPS, typename T> __device__ __forceinline__ T block_sum(T x, T *part) {
    x = warp_sum(x);
    __syncthreads(); // whoever still reads part from an earlier call is done
    if (lane_id() == 0) part[warp_id()] = x;
    __syncthreads(); // part is written
    T sum = part[0];
#pragma unroll
    for (int w = 1; w < WARPS; w++) sum += part[w];
    return sum;
}

// The maximum over a block of WARPS warps, in every thread. `part` has WARPS elements.
template <int WARPS> __device__ __forceinline__ float block_max(float x, float *part) {
    x = warp_max(x);
    __syncthreads(); // whoever still reads part from an earlier call is done
    if (lane_id() == 0) part[warp_id()] = x;
    __syncthreads(); // part is written
    float largest = part[0];
#pragma unroll
    for (int w = 1; w < WARPS; w++) largest = fmaxf(largest, part[w]);
    return largest;
}
