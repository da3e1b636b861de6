// What the kernels of mma.cu are told of a convolution, and places in it.
#pragma once

#include "common/divisor.cuh"

struct Convolution {
    i32 n, h, w, c, r, s, o, p, q, stride, padding; // c and o: of a group
    i32 all_c, all_o;          // channels of a pixel
    u32 part;                  // wgrad: steps k that a block sums
    u32 together;              // whether results are stored by packs
    Divisor tiles_n, tiles_m;
    Divisor outer;             // parts of wgrad; the stride, in dgrad
    Divisor rows, columns;     // of pixels that are counted: P and Q; in dgrad H and W over the stride
    Divisor channels;          // of what a window holds: C; in dgrad O
};
static_assert(sizeof(Convolution) == 132, "as in kernels/src/conv2d/mma.rs");

// A number's digits: (outer * middle_size + middle) * inner_size + inner.
struct Digits {
    i32 outer, middle, inner;
};

template <typename Middle> __device__ __forceinline__ Digits digits(u32 n, Middle middle_size, Divisor inner_size) {
    const u32 inner = take_remainder(n, inner_size);
    const u32 outer = quotient(n, middle_size);
    return {i32(outer), i32(n - outer * divisor(middle_size)), i32(inner)};
}

__device__ __forceinline__ bool inside(i32 y, i32 x, i32 height, i32 width) {
    return u32(y) < u32(height) && u32(x) < u32(width);
}
