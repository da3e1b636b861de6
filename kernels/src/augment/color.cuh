// Operations on single pixels, step by step as in color.rs: compiled without contraction they give its bits.
#pragma once

#include "common/element.cuh"

// As Rust's clamp to 0 ..= 1.
__device__ __forceinline__ float unit(float x) { return x < 0.0f ? 0.0f : (x > 1.0f ? 1.0f : x); }

__device__ __forceinline__ float grey(const float (&p)[1]) { return p[0]; }
// ITU-R 601.
__device__ __forceinline__ float grey(const float (&p)[3]) {
    return 0.2989f * p[0] + 0.587f * p[1] + 0.114f * p[2];
}

template <int C> __device__ __forceinline__ void to_grey(float (&p)[C]) {
    const float value = grey(p);
#pragma unroll
    for (int c = 0; c < C; c++) p[c] = value;
}

template <int C> __device__ __forceinline__ void brightness(float (&p)[C], float factor) {
#pragma unroll
    for (int c = 0; c < C; c++) p[c] = unit(p[c] * factor);
}

// Mixes with a grey value: the image's mean for contrast, the pixel's own for saturation.
template <int C> __device__ __forceinline__ void mix(float (&p)[C], float factor, float value) {
    const float offset = value * (1.0f - factor);
#pragma unroll
    for (int c = 0; c < C; c++) p[c] = unit(p[c] * factor + offset);
}

// x in -6 .. 12 modulo 6.
__device__ __forceinline__ float wrap(float x) {
    x = x < 0.0f ? x + 6.0f : x;
    return x >= 6.0f ? x - 6.0f : x;
}

__device__ __forceinline__ void hue(float (&)[1], float) {}
// Turns the hue by `shift` circles: see the derivation in README.md.
__device__ __forceinline__ void hue(float (&p)[3], float shift) {
    const float r = p[0], g = p[1], b = p[2];
    const float high = fmaxf(fmaxf(r, g), b);
    const float range = high - fminf(fminf(r, g), b);
    const float divisor = range == 0.0f ? 1.0f : range;
    // One division: the numerator is that of the channel that is largest, the first one on ties.
    const float numerator = r == high ? g - b : (g == high ? b - r : r - g);
    const float quotient = numerator / divisor;
    const float sector = r == high ? quotient : (g == high ? 2.0f + quotient : 4.0f + quotient);
    const float turned = wrap(sector + 6.0f * shift);
#pragma unroll
    for (int c = 0; c < 3; c++) {
        const float k = wrap(float(5 - 2 * c) + turned);
        p[c] = high - range * unit(fminf(k, 4.0f - k));
    }
}

// The operations of a jitter from `first` up to `end` of its order, of which two bits of `order` name each; contrast
// has its own pass over the image and is left out.
template <int C>
__device__ __forceinline__ void jitter(float (&p)[C], u32 order, int first, int end, const float (&factors)[4]) {
#pragma unroll 1
    for (int i = first; i < end; i++) {
        switch (order >> (2 * i) & 3) {
        case 0: brightness(p, factors[0]); break;
        case 2:
            if (C == 3) mix(p, factors[2], grey(p));
            break;
        case 3: hue(p, factors[3]); break;
        }
    }
}
