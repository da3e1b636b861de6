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

// Where a window begins in an image, in elements, and a bit for each kernel element that lies inside. Outside of the image
// where it is padded.
struct alignas(8) Place {
    i32 corner;
    u32 meets;
};

// The bits shifted by n: none are left where n is above 31, which shl.b32 allows.
__device__ __forceinline__ u32 shifted(u32 bits, u32 n) {
    asm("shl.b32 %0, %0, %1;" : "+r"(bits) : "r"(n));
    return bits;
}
__device__ __forceinline__ u32 bit_of(u32 n) { return shifted(1, n); }
__device__ __forceinline__ u32 bits_from(u32 n) { return shifted(0xffffffff, n); }

// A bit for the first element of each of `rows` rows of `columns` elements.
__device__ __forceinline__ u32 bits_of_rows(i32 rows, i32 columns) {
    u32 bits = 0;
    for (i32 r = 0; r < rows; r++) bits |= 1u << r * columns;
    return bits;
}

// A bit for each kernel element, the rows one after the other, that lies inside of an image where the first one is at
// (top, left). `rows`: bits_of_rows() of the kernel, of at most 32 elements.
__device__ __forceinline__ u32 elements_inside(u32 rows, i32 columns, i32 top, i32 left, i32 height, i32 width) {
    const u32 of_row = bits_from(max(0, -left)) & ~bits_from(max(0, min(columns, width - left)));
    return of_row * (rows & bits_from(max(0, -top) * columns) & ~bits_from(max(0, height - top) * columns));
}
