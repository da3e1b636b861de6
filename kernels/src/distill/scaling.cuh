// What the kernels of Sinkhorn-Knopp share.
#pragma once

#include "common/element.cuh"

// Sums below the smallest normal number have no inverse in float32: whatever they are of stays zero.
__device__ __forceinline__ float inverse_of(float sum) { return sum < 1.17549435e-38f ? 0.0f : 1.0f / sum; }

// The number of rows that are no padding.
__device__ __forceinline__ u32 valid_rows(const i32 *valid, u32 rows) {
    if (!valid) return rows;
    const i32 n = *valid;
    return n < 0 ? 0 : (u32(n) < rows ? u32(n) : rows);
}
