// Residue classes of input pixels, which the input gradient computes one by one.
#pragma once

#include "common/divisor.cuh"

// A residue class of input pixels in one direction. With h + padding = stride * i + residue, kernel element
// residue + stride * t meets output i - t.
struct Residue {
    i32 residue; // the first kernel element that the pixels meet
    i32 taps;    // kernel elements that they meet
    i32 first;   // the first pixel, then every stride-th
    i32 output;  // the output that meets it with kernel element `residue`
};

__device__ __forceinline__ Residue residue_class(i32 residue, i32 kernel, i32 padding, i32 stride, Divisor by_stride) {
    u32 whole = padding;
    const i32 rest = take_remainder(whole, by_stride);
    const bool later = residue < rest; // the first h is not before the image
    const i32 first = residue - rest + (later ? stride : 0);
    const i32 taps = residue < kernel ? i32(quotient(kernel - residue + stride - 1, by_stride)) : 0;
    return {residue, taps, first, i32(whole) + (later ? 1 : 0)};
}
