// y = (x - mean) * scale + offset: batch normalisation by the map of each channel, [3, stride], that norm_batch_finish leaves.
#pragma once

#include "common/element.cuh"

struct ChannelMap {
    const float *values; // mean, scale, offset at 0, 1, 2 times `stride`, which is a multiple of 4
    u64 stride;
};

// The mean is subtracted before scaling: x * scale + offset would cancel where it is large.
__device__ __forceinline__ float normalised(float x, float mean, float scale, float offset) {
    return (x - mean) * scale + offset;
}
