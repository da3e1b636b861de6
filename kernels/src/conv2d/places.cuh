// Places of pixels and of steps: numbers in mixed bases.
#pragma once

#include "common/divisor.cuh"

// A number's digits: (outer * middle_size + middle) * inner_size + inner.
struct Digits {
    i32 outer, middle, inner;
};

// Middle: Divisor or u32.
template <typename Middle> __device__ __forceinline__ Digits digits(u32 n, Middle middle_size, Divisor inner_size) {
    const u32 inner = take_remainder(n, inner_size);
    const u32 outer = quotient(n, middle_size);
    return {i32(outer), i32(n - outer * divisor(middle_size)), i32(inner)};
}

__device__ __forceinline__ bool inside(i32 y, i32 x, i32 height, i32 width) {
    return u32(y) < u32(height) && u32(x) < u32(width);
}
