// What the kernels of mma.cu are told of a convolution.
#pragma once

#include "conv2d/places.cuh"

// How forward goes over the steps of a window.
struct WindowSteps {
    i32 element, channel; // what a tile's steps add to a step's kernel element and channel, before a carry
    u32 row_factor;       // 65536 / S, rounded up: a kernel element times this, over 65536, is its row
    i32 row_rest;         // elements of x from behind a kernel row to the next
};

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
    WindowSteps steps;         // forward
};
static_assert(sizeof(Convolution) == 152, "as in kernels/src/conv2d/mma.rs");

// The places of the windows of a tile's rows: each is found by one thread and read by those that copy packs of its row. A
// thread keeps those of its first MOST packs in registers, and reads the others for each tile.
template <typename Packs, int MOST> struct WindowPlaces {
    static constexpr int KEPT = Packs::COUNT > MOST ? MOST : Packs::COUNT;
    const Place *shared; // of this thread's first pack
    Place kept[KEPT];

    // All threads call it.
    template <typename F> __device__ __forceinline__ void find(F place_of) {
        __shared__ __align__(16) Place places[TILE_M];
#pragma unroll 1
        for (u32 row = threadIdx.x; row < TILE_M; row += THREADS) places[row] = place_of(row);
        __syncthreads(); // all places are there
        shared = places + Packs::outer();
#pragma unroll
        for (int j = 0; j < KEPT; j++) kept[j] = shared[j * Packs::JUMP];
    }

    // Of pack j, which the compiler knows.
    __device__ __forceinline__ Place operator[](int j) const { return j < KEPT ? kept[j] : shared[j * Packs::JUMP]; }
};
