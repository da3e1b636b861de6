// What the kernels of mma.cu are told of a convolution.
#pragma once

#include "conv2d/places.cuh"

struct Convolution {
    i32 n, h, w, c, r, s, o, p, q, stride, padding; // c and o: of a group
    i32 all_c, all_o;          // channels of a pixel
    u32 part;                  // wgrad: steps k that a block sums
    u32 together;              // whether results are stored by packs
    u32 blocks;                // tiles in all, but for wgrad's
    Divisor tiles_n, tiles_m;
    Divisor outer;             // parts of wgrad; the stride, in dgrad
    Divisor rows, columns;     // of pixels that are counted: P and Q; in dgrad H and W over the stride
    Divisor channels;          // of what a window holds: C; in dgrad O
};
static_assert(sizeof(Convolution) == 136, "as in kernels/src/conv2d/mma.rs");
