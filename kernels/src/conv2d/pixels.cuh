// Pixels of an image as an operand of the weight gradient's products on tensor cores.
//
// Defines: NORMALISED where relu(normalised(x)) is read in place of x.
#pragma once

#include "common/normalise_packs.cuh"
#include "conv2d/convolution.cuh"

// x + i, in one instruction where the compiler takes two.
__device__ __forceinline__ const bf16 *element_of(const bf16 *x, i32 i) {
    const bf16 *at;
    asm("mad.wide.s32 %0, %1, %2, %3;" : "=l"(at) : "r"(i), "n"(sizeof(bf16)), "l"(x));
    return at;
}

// Operand B of wgrad: a row is (kernel row, kernel column, input channel), its steps are output pixels. Reads
// x: [N, H, W, C] along C. The places of a group of pixels, those of a few tiles, are found at once by all threads, a group
// before they are used; a ring in shared memory holds two groups.
struct Pixels {
    using Packs = Share<TILE_N, false>;
    static constexpr int COUNT = Packs::COUNT;
    static constexpr u32 GROUP = 2 * THREADS, RING = 2 * GROUP; // places
    static constexpr u32 TILE_BYTES = TILE_K * sizeof(Place);
    static_assert(GROUP % TILE_K == 0, "groups are whole tiles");
    static_assert(
        SLICES == 1 || (STAGES % 2 == 1 && GROUP / TILE_K % 2 == 0), "look_ahead(), behind two tiles, meets each group's second one"
    );
    const Convolution &z;
    Place *places;  // [RING]
    const bf16 *x;  // the kernel element and channel of this thread's row, in a window that begins at 0
    u32 bit;        // of the kernel element; 0 where the row does not exist
    u32 rows;       // a bit for the first element of every kernel row
    u32 first, end; // pixels: from the first to behind the last
    u32 next;       // bytes of places before those of the next tile to copy

    __device__ __forceinline__ Place place_of(u32 pixel) const {
        const Digits at = digits(pixel, z.rows, z.columns); // image, row, column
        const i32 top = at.middle * z.stride - z.padding, left = at.inner * z.stride - z.padding;
        const i32 corner = ((at.outer * z.h + top) * z.w + left) * z.all_c;
        return {corner, elements_inside(rows, z.s, top, left, z.h, z.w)};
    }

    // Finds the places of GROUP pixels, from `from` pixels behind the first one on: zeros behind the last.
    __device__ __forceinline__ void find(u32 from) {
#pragma unroll 1
        for (u32 i = 0; i < GROUP; i += THREADS) {
            const u32 number = from + i + threadIdx.x, pixel = first + number;
            Place place = {0, 0};
            if (first + from < end) place = place_of(pixel); // the same branch for all threads
            if (pixel >= end) place = {0, 0};
            places[number % RING] = place;
        }
    }

    // Pixels from `first` to `end_k`; `row` is this thread's first of the weights' R S C. All threads call it.
    __device__ __forceinline__ Pixels(
        const bf16 *base, const Convolution &convolution, Place *ring, u32 row, u32 first, u32 end_k
    ) : z(convolution), places(ring), first(first), end(end_k), next(0) {
        const Digits tap = digits(row, u32(z.s), z.channels); // kernel row, kernel column, channel
        x = base + ((tap.outer * z.w + tap.middle) * z.all_c + tap.inner);
        bit = tap.outer < z.r ? 1u << (tap.outer * z.s + tap.middle) : 0;
        rows = bits_of_rows(z.r, z.s);
        find(0), find(GROUP);
        __syncthreads(); // the places of the first two groups are known
    }

    // Copies packs `from` to `behind` of the next tile, and says of each which kernel elements lie inside. Their places are
    // read first: between a read of shared memory and a copy to it the compiler puts instructions that do nothing.
    template <typename F>
    __device__ __forceinline__ void copy_packs(u32 to, int from, int behind, bool wanted, F copied) const {
        const char *tile = reinterpret_cast<const char *>(places) + next % (RING * sizeof(Place));
        const Place *place = reinterpret_cast<const Place *>(tile) + Packs::outer();
        Place at[COUNT];
#pragma unroll
        for (int j = from; j < behind; j++) at[j] = place[j * Packs::JUMP];
#pragma unroll
        for (int j = from; j < behind; j++) {
            copy_async_if(wanted, to + Packs::place(j), element_of(x, at[j].corner), at[j].meets & bit ? 16 : 0);
            copied(at[j].meets);
        }
    }

    __device__ __forceinline__ void copy(u32 to, int from, int behind, bool wanted) {
        copy_packs(to, from, behind, wanted, [](u32) {});
    }
    __device__ __forceinline__ void advance() { next += TILE_BYTES; }

    // Behind the first tile of a group nobody reads the places of the group before any more: those of the group behind
    // take their room. Barriers lie between this and their copies.
    __device__ __forceinline__ void look_ahead() {
        if (next % (GROUP * sizeof(Place)) == TILE_BYTES) find(next / sizeof(Place) - TILE_K + GROUP);
    }
};

#if defined(NORMALISED)
// Pixels of relu(normalised(x)): as NormalisedWindows. Which packs lie inside is found when they are copied, and kept until
// they arrive: a bit for each, the latest one's the highest.
struct NormalisedPixels : Pixels {
    ChannelMap map;
    u32 channel; // of all packs of this thread
    u32 number;  // of their kernel element's bit; 0 where there is none, of what nobody stores
    u32 inside_bits;
    static_assert(STAGES * COUNT <= 32, "tiles on the way have bits of their own");

    __device__ __forceinline__ NormalisedPixels(
        const bf16 *base, const Convolution &z, Place *ring, u32 row, u32 first, u32 end_k, ChannelMap map
    ) : Pixels(base, z, ring, row, first, end_k), map(map), inside_bits(0) {
        channel = digits(row, u32(z.s), z.channels).inner;
        number = 31 - __clz(bit | 1);
    }

    __device__ __forceinline__ void copy(u32 to, int from, int behind, bool wanted) {
        copy_packs(to, from, behind, wanted, [&](u32 meets) {
            inside_bits = __funnelshift_r(inside_bits, meets >> number, 1); // the lowest bit of that comes in
        });
    }
};

__device__ __forceinline__ void arrived(NormalisedPixels &b, u32 tile, int behind) {
    constexpr int COUNT = NormalisedPixels::COUNT;
    normalise_packs<NormalisedPixels::Packs>(
        tile, b.map, b.channel, [&](int j) { return b.inside_bits & 1u << (32 - behind * COUNT + j); }
    );
}
typedef NormalisedPixels Gathered;
#else
typedef Pixels Gathered;
#endif
__device__ __forceinline__ void look_ahead(Gathered &b) { b.look_ahead(); }
