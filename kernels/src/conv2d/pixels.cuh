// Pixels of an image as an operand of the weight gradient's products on tensor cores.
//
// Defines: NORMALISED where relu(normalised(x)) is read in place of x.
#pragma once

#include "common/normalise_packs.cuh"
#include "conv2d/convolution.cuh"

// Where an output pixel's window begins in x, in elements, and a bit for each kernel element that lies inside the image.
struct alignas(8) Place {
    i32 corner;
    u32 meets;
};

// The lowest n bits, of 32.
__device__ __forceinline__ u32 lowest(i32 n) { return n > 31 ? 0xffffffff : (1u << n) - 1; }

// Operand B of wgrad: a row is (kernel row, kernel column, input channel), its steps are output pixels. Reads
// x: [N, H, W, C] along C. The places of a tile's pixels are found once a block, by as many threads, a tile before they are
// used; a ring in shared memory holds them.
struct Pixels {
    using Packs = Share<TILE_N, false>;
    static constexpr int COUNT = Packs::COUNT;
    static constexpr u32 RING = 4;    // tiles
    const Convolution &z;
    Place *places;                    // [RING][TILE_K]
    const bf16 *x;                    // the kernel element and channel of this thread's row, in a window that begins at 0
    u32 bit;                          // of the kernel element; 0 where the row does not exist
    u32 rows;                         // a bit for the first element of every kernel row
    u32 tile, pixel, end;             // the next tile to copy; this thread's pixel of the next places; behind the last one

    __device__ __forceinline__ Place place() const {
        const Digits at = digits(pixel, z.rows, z.columns); // image, row, column
        const i32 top = at.middle * z.stride - z.padding, left = at.inner * z.stride - z.padding;
        const u32 columns = lowest(max(0, min(z.s, z.w - left))) & ~lowest(max(0, -left));
        const u32 inside = rows & lowest(max(0, min(z.r, z.h - top)) * z.s) & ~lowest(max(0, -top) * z.s);
        if (pixel >= end) return {0, 0};
        return {((at.outer * z.h + top) * z.w + left) * z.all_c, columns * inside};
    }

    // Pixels from `first` to `end_k`; `row` is this thread's first of the weights' R S C. All threads call it.
    __device__ __forceinline__ Pixels(
        const bf16 *base, const Convolution &convolution, Place *ring, u32 row, u32 first, u32 end_k
    ) : z(convolution), places(ring), tile(0), pixel(first + threadIdx.x), end(end_k) {
        const Digits tap = digits(row, u32(z.s), z.channels); // kernel row, kernel column, channel
        x = base + ((tap.outer * z.w + tap.middle) * z.all_c + tap.inner);
        bit = tap.outer < z.r ? 1u << (tap.outer * z.s + tap.middle) : 0;
        rows = 0;
        for (i32 r = 0; r < z.r; r++) rows |= 1u << r * z.s;
        for (u32 i = threadIdx.x; i < 3 * TILE_K; i += THREADS, pixel += THREADS) places[i] = place();
        pixel = first + 3 * TILE_K + threadIdx.x;
        __syncthreads(); // the places of the first three tiles are known
    }

    // Copies pack j, and gives whether it lies inside.
    __device__ __forceinline__ bool copy_pack(u32 to, int j, bool wanted) const {
        const Place at = places[tile % RING * TILE_K + Packs::outer() + j * Packs::JUMP];
        const bool meets = at.meets & bit;
        copy_async_if(wanted, to + Packs::place(j), x + at.corner, meets ? 16 : 0);
        return meets;
    }

    __device__ __forceinline__ void copy(u32 to, int from, int behind, bool wanted) {
#pragma unroll
        for (int j = from; j < behind; j++) copy_pack(to, j, wanted);
    }

    // The loop's barrier lies between this and the next tile's copies, but for the first two.
    __device__ __forceinline__ void advance() {
        if (++tile < 3 || threadIdx.x >= TILE_K) return;
        places[tile % RING * TILE_K + threadIdx.x] = place();
        pixel += TILE_K;
    }
};

#if defined(NORMALISED)
// Pixels of relu(normalised(x)): as NormalisedWindows. Which packs lie inside is found when they are copied, and kept until
// they arrive: a bit for each, those of the tile that was copied STAGES tiles ago first.
struct NormalisedPixels : Pixels {
    ChannelMap map;
    u32 channel; // of all packs of this thread
    u32 inside_bits;
    using Pixels::Pixels;
    static_assert((STAGES + 1) * COUNT <= 32, "tiles on the way have bits of their own");

    __device__ __forceinline__ void copy(u32 tile, int from, int to, bool wanted) {
#pragma unroll
        for (int j = from; j < to; j++) {
            const u32 at = copy_pack(tile, j, wanted);
            inside_bits |= at << (j + STAGES * COUNT);
        }
    }
    __device__ __forceinline__ void advance() {
        Pixels::advance();
        inside_bits >>= COUNT;
    }
};

__device__ __forceinline__ void arrived(NormalisedPixels &b, u32 tile, int behind) {
    const u32 bits = b.inside_bits >> (STAGES - behind) * NormalisedPixels::COUNT;
    normalise_packs<NormalisedPixels::Packs>(tile, b.map, b.channel, [&](int j) { return bits >> j & 1; });
}
#endif
