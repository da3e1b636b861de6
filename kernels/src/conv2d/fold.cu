// The stride of a convolution folded into its channels: a convolution of few channels becomes one of stride 1, without
// padding, whose channels are packs for tensor cores.
//
//     folded[n, i, j, (a, b, c)] = x[n, i stride + a - padding, j stride + b - padding, c]      a, b < stride
//     weight'[o, u, v, (a, b, c)] = weight[o, u stride + a, v stride + b, c]
//     y[n, p, q, o] = sum over u, v, (a, b, c) of folded[n, p + u, q + v, (a, b, c)] weight'[o, u, v, (a, b, c)]
//
// Outside of the image, of the kernel, and behind the stride^2 C channels are zeros. Elements are moved and nothing is computed.

#include "common/divisor.cuh"

struct Fold {
    i32 h, w, c, r, s, stride, padding;
    i32 pixels;      // of a row of the folded image that a block makes
    u32 count;       // elements of a weight's result
    Divisor rows, columns, channels; // of the folded image or kernel; channels with those behind the last
    Divisor packs;                   // of 8 channels
    Divisor segments;                // blocks of a row
    Divisor run;                     // elements that a pixel takes of one row of x: stride C
    Divisor element;                 // C
    Divisor stride_of, wide, outer;  // stride, S and R
};
static_assert(sizeof(Fold) == 156, "as in kernels/src/conv2d/fold.rs");

constexpr u32 THREADS = 128;
constexpr i32 STAGED = 8192; // elements

// x: [N, H, W, C], folded: [N, rows, columns, 8 packs]. Blocks: segments of a row, then rows, then images.
KERNEL __launch_bounds__(THREADS) conv2d_fold_bf16(const bf16 *x, bf16 *folded, Fold z) {
    __shared__ u16 rows[STAGED]; // [stride][the segment's pixels, stride C each]
    u32 image = blockIdx.x;
    const i32 first = take_remainder(image, z.segments) * z.pixels, i = take_remainder(image, z.rows);
    const i32 pixels = min(z.pixels, i32(z.columns.divisor) - first), run = z.run.divisor;
    const i32 length = pixels * run, begin = (first * z.stride - z.padding) * z.c, width = z.w * z.c;
    for (i32 a = 0; a < z.stride; a++) {
        const i32 y = i * z.stride + a - z.padding;
        const bool exists = y >= 0 && y < z.h;
        const bf16 *row = x + (u64(image) * z.h + (exists ? y : 0)) * width;
        for (i32 e = threadIdx.x; e < length; e += THREADS) {
            const i32 at = begin + e;
            rows[a * length + e] = exists && at >= 0 && at < width ? row[at].bits : u16(0);
        }
    }
    __syncthreads(); // the rows are there
    uint4 *out = reinterpret_cast<uint4 *>(folded) + ((u64(image) * z.rows.divisor + i) * z.columns.divisor + first) * z.packs.divisor;
    for (u32 pack = threadIdx.x; pack < pixels * z.packs.divisor; pack += THREADS) {
        u32 rest = pack;
        const u32 pixel = take_quotient(rest, z.packs);
        rest *= 8;
        u32 a = take_quotient(rest, z.run), words[4];
#pragma unroll
        for (int e = 0; e < 8; e++) {
            const u32 bits = a < z.stride ? rows[a * length + pixel * run + rest] : u16(0);
            words[e / 2] = e % 2 ? words[e / 2] | bits << 16 : bits;
            if (++rest == run) rest = 0, a++;
        }
        out[pack] = make_uint4(words[0], words[1], words[2], words[3]);
    }
}

// weight: [O, R, S, C], folded: [O, rows, columns, channels], `count` elements. A thread an element.
KERNEL __launch_bounds__(THREADS) conv2d_fold_weight_bf16(
    const bf16 *weight, bf16 *folded, Fold z
) {
    const u32 n = blockIdx.x * THREADS + threadIdx.x;
    if (n >= z.count) return;
    u32 o = n;
    u32 b = take_remainder(o, z.channels);
    const u32 v = take_remainder(o, z.columns), u = take_remainder(o, z.rows);
    const u32 a = take_quotient(b, z.run), c = take_remainder(b, z.element);
    const u32 r = u * z.stride + a, s = v * z.stride + b;
    const bool exists = a < z.stride && r < z.r && s < z.s;
    folded[n] = exists ? weight[((u64(o) * z.r + r) * z.s + s) * z.c + c] : bf16{0};
}

// The other way: folded: [O, rows, columns, channels], weight: [O, R, S, C], `count` elements.
KERNEL __launch_bounds__(THREADS) conv2d_unfold_weight_bf16(
    const bf16 *folded, bf16 *weight, Fold z
) {
    const u32 n = blockIdx.x * THREADS + threadIdx.x;
    if (n >= z.count) return;
    u32 o = n;
    const u32 c = take_remainder(o, z.element);
    u32 v = take_remainder(o, z.wide), u = take_remainder(o, z.outer);
    const u32 b = take_remainder(v, z.stride_of), a = take_remainder(u, z.stride_of);
    const u32 channel = (a * z.stride + b) * z.c + c;
    weight[n] = folded[((u64(o) * z.rows.divisor + u) * z.columns.divisor + v) * z.channels.divisor + channel];
}
