// The stride of a convolution folded into its channels: a convolution of few channels becomes one of stride 1, without
// padding, whose channels are packs for tensor cores.
//
//     folded[n, i, j, (a, b, c)] = x[n, i stride + a - padding, j stride + b - padding, c]      a, b < stride
//     weight'[o, u, v, (a, b, c)] = weight[o, u stride + a, v stride + b, c]
//     y[n, p, q, o] = sum over u, v, (a, b, c) of folded[n, p + u, q + v, (a, b, c)] weight'[o, u, v, (a, b, c)]
//
// Outside of the image, of the kernel, and behind the stride^2 C channels are zeros. Elements are moved and nothing is computed.

#include "common/cp_async.cuh"
#include "common/divisor.cuh"
#include "common/mma.cuh"

struct Fold {
    u32 h, w, c, r, s, stride, padding;
    u32 pixels;      // of a row of the folded image that a block makes
    u32 count;       // elements of a weight's result
    u32 together;    // whether rows of x are aligned packs
    Divisor rows, columns, channels; // of the folded image or kernel; channels with those behind the last
    Divisor packs;                   // of 8 channels
    Divisor row_packs;               // of 8 elements of a row of x that a segment meets, at most
    Divisor segments;                // blocks of a row
    Divisor run;                     // elements that a pixel takes of one row of x: stride C
    Divisor element;                 // C
    Divisor stride_of, wide, outer;  // stride, S and R
};
static_assert(sizeof(Fold) == 172, "as in kernels/src/conv2d/fold.rs");

constexpr u32 THREADS = 128;
constexpr u32 STAGED = 8192; // elements

// Where element n of a segment of the folded image lies in shared memory, and so pack n / 8: packs are exchanged so that 32
// lanes that write a few elements of each of their pixels meet other banks, and so do 8 that read packs of 16 bytes.
__device__ __forceinline__ u32 exchanged(u32 n) { return n ^ (n / 64 % 8) * 8; }

// x: [N, H, W, C], folded: [N, rows, columns, 8 packs]. Blocks: segments of a row, then rows, then images. Each thread brings
// elements of x to their places in the segment, then stores packs of that. Where rows of x are aligned packs, `together`, the
// elements come from copies of the packs that the segment meets, which lie as in x, with zeros outside of the image.
KERNEL __launch_bounds__(THREADS) conv2d_fold_bf16(const bf16 *x, bf16 *folded, Fold z) {
    __shared__ __align__(16) u16 staged[STAGED]; // [pixels, 8 packs], [stride, 8 row_packs]
    u32 image = blockIdx.x;
    const u32 first = take_remainder(image, z.segments) * z.pixels, i = take_remainder(image, z.rows);
    const u32 pixels = min(z.pixels, z.columns.divisor - first), packs = pixels * z.packs.divisor;
    const u32 run = z.run.divisor, length = pixels * run, gap = 8 * z.packs.divisor - run, width = z.w * z.c;
    const i32 begin = (first * z.stride - z.padding) * z.c, top = i * z.stride - z.padding;
    const bf16 *from = x + u64(image) * z.h * width;
    u16 *copies = staged + (8 * packs + 63) / 64 * 64;

    if (z.together) {
        for (u32 pack = threadIdx.x; pack < z.stride * z.row_packs.divisor; pack += THREADS) {
            u32 a = pack;
            const u32 number = take_remainder(a, z.row_packs), at = (begin & -8) + 8 * number, y = top + a;
            // What lies before the image is above all numbers in it.
            const bool exists = y < z.h && at < width && 8 * number < (begin & 7) + length;
            copy_async(shared_address(copies + 8 * pack), from + (exists ? u64(y) * width + at : 0), exists ? 16 : 0);
        }
        copy_commit();
    }
    for (u32 pack = threadIdx.x; pack < packs; pack += THREADS)
        *reinterpret_cast<uint4 *>(staged + exchanged(8 * pack)) = make_uint4(0, 0, 0, 0);
    copy_wait<0>();
    __syncthreads(); // the copies have arrived, and what nobody writes is zero

    for (u32 a = 0; a < z.stride; a++) {
        const auto place = [&](u32 e) { return exchanged(e + quotient(e, z.run) * gap + a * run); };
        if (z.together) {
            const u16 *row = copies + 8 * a * z.row_packs.divisor + (begin & 7);
            for (u32 e = threadIdx.x; e < length; e += THREADS) staged[place(e)] = row[e];
        } else if (top + a < z.h) {
            const bf16 *row = from + u64(top + a) * width;
#pragma unroll 1
            for (u32 e = threadIdx.x; e < length; e += THREADS)
                if (begin + e < width) staged[place(e)] = row[begin + e].bits;
        }
    }
    __syncthreads(); // the segment is there
    uint4 *out = reinterpret_cast<uint4 *>(folded) + ((u64(image) * z.rows.divisor + i) * z.columns.divisor + first) * z.packs.divisor;
    for (u32 pack = threadIdx.x; pack < packs; pack += THREADS)
        out[pack] = *reinterpret_cast<const uint4 *>(staged + exchanged(8 * pack));
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
