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
    i32 width, channels, kernel_columns;
    i32 pitch;         // elements from one pixel to the next
    i32 corner[COUNT]; // where each pack's window begins, in elements; outside of the image where it is padded
    u32 meets[COUNT];  // a bit for each kernel element that lies inside
    i32 row, column, channel; // this thread's step: kernel row, kernel column, channel
    Digits step;              // 64 steps

    // `columns`: kernel columns; `height`: of the image; `all`: channels of a pixel; `group`: the
    // first that is read.
    template <typename Middle, typename F>
    __device__ __forceinline__ void begin(
        const bf16 *base, i32 height, i32 wide, i32 all, i32 group, i32 kernel_rows, Middle columns, Divisor channels_of, F corner_of
    ) {
        image = base, width = wide, pitch = all, channels = channels_of.divisor, kernel_columns = i32(divisor(columns));
        const Digits first = digits(Packs::inner(), columns, channels_of);
        row = first.outer, column = first.middle, channel = first.inner;
        const u32 rows = bits_of_rows(kernel_rows, kernel_columns);
#pragma unroll
        for (int j = 0; j < COUNT; j++) {
            i32 image_number, y, x;
            const bool exists = corner_of(Packs::outer() + j * Packs::JUMP, image_number, y, x);
            corner[j] = ((image_number * height + y) * width + x) * pitch + group;
            meets[j] = exists ? elements_in(rows, kernel_columns, -y, height - y, -x, width - x) : 0;
        }
        step = digits(TILE_K, columns, channels_of); // before the windows it would cost registers in them
    }

    __device__ __forceinline__ void copy(u32 tile, int from, int to, bool wanted) {
        const u32 element = row * kernel_columns + column;
        const u32 bit = element < 32 ? 1u << element : 0;
        const i32 offset = (row * width + column) * pitch + channel;
#pragma unroll
        for (int j = from; j < to; j++)
            copy_async_if(wanted, tile + Packs::place(j), image + (corner[j] + offset), meets[j] & bit ? 16 : 0);
    }

    __device__ __forceinline__ void advance() {
        row += step.outer, column += step.middle, channel += step.inner;
        if (channel >= channels) channel -= channels, column++;
        if (column >= kernel_columns) column -= kernel_columns, row++;
    }
};

#if defined(NORMALISED)
// Windows of relu(normalised(x)): each thread computes on the packs that it copied itself, once they have arrived. What
// lies outside of the image stays zero.
struct NormalisedWindows : Windows {
    ChannelMap map;
    Divisor channels_of;
};

__device__ __forceinline__ void arrived(NormalisedWindows &a, u32 tile, int behind) {
    // The step is that of the next tile to copy.
    u32 element = (a.row * a.kernel_columns + a.column) * a.channels + a.channel - behind * TILE_K;
    const u32 channel = take_remainder(element, a.channels_of);
    const u32 bit = element < 32 ? 1u << element : 0;
    normalise_packs<NormalisedWindows::Packs>(tile, a.map, channel, [&](int j) { return a.meets[j] & bit; });
}
#endif
