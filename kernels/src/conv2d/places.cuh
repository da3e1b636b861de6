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

// The bits from the n-th on: none where n is above 31, which shl.b32 allows.
__device__ __forceinline__ u32 bits_from(u32 n) {
    u32 bits;
    asm("shl.b32 %0, %1, %2;" : "=r"(bits) : "r"(0xffffffff), "r"(n));
    return bits;
}

// A bit for the first element of every row of a kernel.
__device__ __forceinline__ u32 bits_of_rows(i32 rows, i32 columns) {
    u32 bits = 0;
    for (i32 r = 0; r < rows; r++) bits |= 1u << r * columns;
    return bits;
}

// A bit for each kernel element in rows from `top` to `bottom` and columns from `left` to `right`, without the last: what
// lies outside of the kernel does not count. `rows`: bits_of_rows().
__device__ __forceinline__ u32 elements_in(u32 rows, i32 columns, i32 top, i32 bottom, i32 left, i32 right) {
    const u32 across = bits_from(max(0, left)) & ~bits_from(max(0, min(columns, right)));
    const u32 down = rows & bits_from(max(0, top) * columns) & ~bits_from(max(0, bottom) * columns);
    return across * down;
}
