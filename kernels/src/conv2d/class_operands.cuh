// The operands of the input gradient's products on tensor cores, for one residue class of input pixels.
//
// The steps go over the class's kernel elements, then over output channels. Those are multiples of TILE_K, so that a tile's
// steps are of one kernel element, the same for all threads: what goes on from tile to tile is a few numbers of the block.
#pragma once

#include "conv2d/convolution.cuh"
#include "conv2d/residue.cuh"

// A tile of the results: its class, its first pixel of those and its first channel, and its steps, none where no kernel
// element meets the class. Tiles of C come first, then of pixels, then classes.
struct ClassTile {
    Residue down, right;
    u32 first_m, first_n, steps;
    __device__ __forceinline__ ClassTile(u32 number, const Convolution &z) {
        first_n = take_remainder(number, z.tiles_n) * TILE_N;
        first_m = take_remainder(number, z.tiles_m) * TILE_M;
        const u32 vertical = take_remainder(number, z.outer);
        down = residue_class(vertical, z.r, z.padding, z.stride, z.outer);
        right = residue_class(number, z.s, z.padding, z.stride, z.outer);
        steps = down.taps * right.taps * z.o / TILE_K;
    }
};

// Where the next tile to copy is among a class's steps.
struct Walk {
    i32 channels, columns; // of a kernel element, elements of a kernel row
    i32 left, column;      // channels of its element from the tile's own on; its kernel column
    bool next, next_row;   // whether it is the first tile of its element, and of its kernel row, behind the first of all

    __device__ __forceinline__ void advance() {
        next = left <= TILE_K;
        left = next ? channels : left - TILE_K;
        column += next ? 1 : 0;
        next_row = column == columns;
        column = next_row ? 0 : column;
    }
};

// Operand A: a row is a pixel's window of dy, which kernel elements walk backwards from its corner.
struct ClassWindows {
    using Packs = Share<TILE_M, true>;
    static constexpr int COUNT = Packs::COUNT;
    const bf16 *dy;
    Walk walk;
    WindowPlaces<Packs, 16> places;
    u32 bit;           // of the next tile's kernel element
    i32 offset;        // of its elements from the corner
    i32 element_rest, row_rest; // from behind an element's last channel to the next element, and more to the next kernel row

    __device__ __forceinline__ ClassWindows(
        const bf16 *dy, const Convolution &z, const Residue &down, const Residue &right, u32 first_row
    )
        : dy(dy), walk{z.o, right.taps, z.o, 0, false, false}, bit(1), offset(Packs::inner()) {
        element_rest = -z.all_o - z.o, row_rest = (right.taps - z.q) * z.all_o;
        const u32 pixels = z.n * z.rows.divisor * z.columns.divisor;
        const u32 rows = bits_of_rows(down.taps, right.taps);
        places.find([&](u32 tile_row) {
            const u32 row = first_row + tile_row;
            const Digits pixel = digits(row, z.rows, z.columns); // image, row, column of the class
            const i32 y = down.output + pixel.middle, x = right.output + pixel.inner;
            const i32 first = ((pixel.outer * z.p + y) * z.q + x) * z.all_o + blockIdx.y * z.o;
            // Elements that go back from (y, x) are inside where those that go on from the opposite pixel are.
            const i32 top = z.p - 1 - y, left = z.q - 1 - x;
            return Place{first, row < pixels ? elements_inside(rows, right.taps, top, left, z.p, z.q) : 0};
        });
    }

    // Corner and offset are added as numbers that wrap: of others the compiler keeps each pack's address, twice the registers.
    __device__ __forceinline__ void copy(u32 tile, int from, int to, bool wanted) {
#pragma unroll
        for (int j = from; j < to; j++) {
            const Place at = places[j];
            copy_async_if(wanted, tile + Packs::place(j), dy + i32(u32(at.corner) + u32(offset)), at.meets & bit ? 16 : 0);
        }
    }

    __device__ __forceinline__ void advance() {
        walk.advance();
        offset += TILE_K + (walk.next ? element_rest : 0) + (walk.next_row ? row_rest : 0);
        bit <<= walk.next ? 1 : 0;
    }
};

// Operand B: a row is an input channel. Reads w: [O, R, S, C] along C. Distances are in elements, below the number of all
// weights.
struct ClassWeights {
    using Packs = Share<TILE_N, false>;
    static constexpr int COUNT = Packs::COUNT;
    const Walk *walk; // of the windows, which advance before this
    const bf16 *at;   // this thread's next pack
    i32 jump;         // to the next pack
    i32 element_rest, row_rest; // from behind an element's last channel to the next element, and more to the next kernel row
    i32 tiles;        // from this one on; 0 where the row does not exist

    __device__ __forceinline__ ClassWeights(
        const bf16 *w, const Convolution &z, const Residue &down, const Residue &right, u32 first_row, const Walk *walk
    ) : walk(walk) {
        const i32 output = z.r * z.s * z.c, next_column = z.stride * z.c, next_row = next_column * z.s;
        const u32 channel = first_row + Packs::inner();
        at = w + (i64(blockIdx.y) * z.o + Packs::outer()) * output + (down.residue * z.s + right.residue) * z.c + channel;
        jump = Packs::JUMP * output;
        element_rest = next_column - z.o * output, row_rest = next_row - right.taps * next_column;
        tiles = channel < z.c ? down.taps * right.taps * z.o / TILE_K : 0;
    }

    // The addition is the compiler's not to undo: it keeps the distances of all packs from the first in registers.
    __device__ __forceinline__ void copy(u32 tile, int from, int to, bool wanted) {
#pragma unroll
        for (int j = from; j < to; j++) {
            copy_async_if(wanted, tile + Packs::place(j), at, tiles > 0 ? 16 : 0);
            asm("add.s64 %0, %0, %1;" : "+l"(at) : "l"(i64(sizeof(bf16)) * jump));
        }
    }

    __device__ __forceinline__ void advance() {
        tiles--;
        at += (walk->next ? element_rest : 0) + (walk->next_row ? row_rest : 0);
    }
};
