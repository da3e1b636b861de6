// Windows of an image as an operand of products on tensor cores.
//
// Defines: NORMALISED where relu(normalised(x)) is read in place of x.
#pragma once

#include "common/normalise_packs.cuh"
#include "conv2d/convolution.cuh"

// Operand A of forward: a row is a pixel's window of an image [.., height, width, channels], its steps are
// (kernel row, kernel column, channel).
struct Windows {
    using Packs = Share<TILE_M, true>;
    static constexpr int COUNT = Packs::COUNT;
    const bf16 *image;
    WindowPlaces<Packs, 12> places; // of the 16 in the tile of 128 x 64 registers are left for 12
    i32 element, channel; // this thread's step: kernel element and channel
    i32 channels, pitch;  // of a group, of a pixel
    WindowSteps steps;

    // The windows of x whose first elements corner_of() gives for rows of the tile, in this block's group.
    template <typename F> __device__ __forceinline__ void begin(const bf16 *x, const Convolution &z, F corner_of) {
        image = x, channels = z.c, pitch = z.all_c, steps = z.steps;
        u32 first = Packs::inner();
        channel = take_remainder(first, z.channels), element = first;
        const u32 rows = bits_of_rows(z.r, z.s);
        places.find([&](u32 tile_row) {
            i32 image_number, y, x;
            const bool exists = corner_of(tile_row, image_number, y, x);
            const i32 begin = ((image_number * z.h + y) * z.w + x) * z.all_c + blockIdx.y * z.c;
            return Place{begin, exists ? elements_inside(rows, z.s, y, x, z.h, z.w) : 0};
        });
    }

    // Copies packs `from` to `to` of the next tile, each to its place.
    template <typename F> __device__ __forceinline__ void copy_to(F place_of, int from, int to, bool wanted) {
        const u32 bit = bit_of(element);
        const i32 row = u32(element) * steps.row_factor >> 16;
        const i32 offset = element * pitch + channel + row * steps.row_rest;
#pragma unroll
        for (int j = from; j < to; j++) {
            const Place at = places[j];
            copy_async_if(wanted, place_of(j), image + (at.corner + offset), at.meets & bit ? 16 : 0);
        }
    }
    __device__ __forceinline__ void copy(u32 tile, int from, int to, bool wanted) {
        copy_to([&](int j) { return tile + Packs::place(j); }, from, to, wanted);
    }

    // As a dense operand's: every pack is asked whether it is outside, but its place is not computed.
    static constexpr u32 ragged = 0;
    __device__ __forceinline__ void copy_whole(u32 first, bool wanted) {
        copy_to([&](int j) { return first + j * Packs::JUMP_BYTES; }, 0, COUNT, wanted);
    }
    __device__ __forceinline__ void forget() {}

    __device__ __forceinline__ void advance() {
        element += steps.element, channel += steps.channel;
        if (channel >= channels) channel -= channels, element++;
    }
};

template <> constexpr bool goes_in_rounds<Windows> = true;

#if defined(NORMALISED)
// Windows of relu(normalised(x)): each thread computes on the packs that it copied itself, once they have arrived. What
// lies outside of the image stays zero.
struct NormalisedWindows : Windows {
    ChannelMap map;
    u32 channel_of[STAGES], bit_of_element[STAGES]; // of the tiles on the way, the latest one's first

    __device__ __forceinline__ void advance() {
#pragma unroll
        for (int i = STAGES - 1; i > 0; i--) channel_of[i] = channel_of[i - 1], bit_of_element[i] = bit_of_element[i - 1];
        channel_of[0] = channel, bit_of_element[0] = bit_of(element);
        Windows::advance();
    }
};
template <> constexpr bool goes_in_rounds<NormalisedWindows> = true;

__device__ __forceinline__ void arrived(NormalisedWindows &a, u32 tile, int behind) {
    const u32 bit = a.bit_of_element[behind - 1];
    normalise_packs<NormalisedWindows::Packs>(
        tile, a.map, a.channel_of[behind - 1], [&](int j) { return a.places[j].meets & bit; }
    );
}
#endif
