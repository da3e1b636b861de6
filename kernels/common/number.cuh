// A number that changes from step to step: by value, or in device memory, where a captured step finds that of its own
// turn.
#pragma once

#include "common/element.cuh"

// In device memory where `at` is not null.
struct Number {
    const float *at;
    float value;
    u32 unused;
    __device__ __forceinline__ float get() const { return at ? *at : value; }
};
