// multiply() of common/mma_tile.cuh on Hopper, of matrices whose tiles one thread copies as boxes.
//
// Full barriers tell all warps that a tile has arrived, empty ones tell that thread that its place is free, since every warp's
// products have read it. No other barrier is in the loop: a warpgroup may be a tile ahead of the other, and the tensor cores
// have products of one while the other waits. A tile's products are on the way when the next ones are issued.
#pragma once

#include "common/tensor_map.cuh"
#include "common/wgmma_loop.cuh"

// The places of tiles in shared memory, and whose turn they are.
struct Places {
    u32 full, empty; // barriers of the first place; eight bytes lead to the next one's
    u32 parities;    // a bit for each place: that of its phase

    // All threads call it. `barriers`: two for each place.
    __device__ __forceinline__ Places(u64 (&barriers)[2 * STAGES])
        : full(shared_address(barriers)), empty(shared_address(barriers + STAGES)), parities(0) {
        if (threadIdx.x == 0) {
            for (int place = 0; place < STAGES; place++) {
                barrier_init(full + 8 * place, 1);
                barrier_init(empty + 8 * place, WARPS);
            }
            barriers_made();
        }
        __syncthreads(); // the barriers are made
    }
    __device__ __forceinline__ u32 parity(u32 place) const { return parities >> place & 1; }
};

// A matrix as an operand: ROWS rows from `row` on, steps k from `k` on, of product `batch`. Its map has boxes of 64 steps and ROWS
// rows where it lies along k, else of 64 rows and 64 steps.
template <int ROWS, bool ALONG_K> struct BoxedOperand {
    const TensorMap *map;
    u32 row, k, batch;

    // Copies the next tile.
    __device__ __forceinline__ void copy(u32 tile, u32 barrier) {
        if constexpr (ALONG_K) {
            copy_box(tile, *map, k, row, batch, barrier);
        } else {
#pragma unroll
            for (int group = 0; group < ROWS / 64; group++)
                copy_box(tile + group * 64 * ROW_BYTES, *map, row + 64 * group, k, batch, barrier);
        }
        k += TILE_K;
    }
};

// Both operands of a product, of which `tiles` are to be copied.
template <int M, bool A_ALONG_K, int N, bool B_ALONG_K> struct Boxes {
    Places *places;
    BoxedOperand<M, A_ALONG_K> a;
    BoxedOperand<N, B_ALONG_K> b;
    u32 tiles;

    // Copies the next tile to its place, if there is one; the thread that does it calls it.
    __device__ __forceinline__ void copy(u32 shared, u32 place) {
        if (tiles == 0) return;
        tiles--;
        const u32 barrier = places->full + 8 * place, tile = shared + place * STAGE_BYTES;
        barrier_expect(barrier, STAGE_BYTES);
        a.copy(tile, barrier), b.copy(tile + A_BYTES, barrier);
    }

    // This warp's products have read a place: its next tile is copied when those of all warps have.
    __device__ __forceinline__ void release(u32 shared, u32 place) {
        if (threadIdx.x % 32 == 0) barrier_arrive(places->empty + 8 * place);
        if (threadIdx.x == 0 && tiles > 0) {
            barrier_wait(places->empty + 8 * place, places->parity(place));
            copy(shared, place);
        }
        __syncwarp();
        places->parities ^= 1 << place;
    }

    // As start_copies(): the first tiles, behind which the result of the product before lies.
    __device__ __forceinline__ void start(u32 shared) {
        if (threadIdx.x == 0)
            for (int place = 0; place < AHEAD; place++) copy(shared, place);
    }

    template <typename Rows> __device__ __forceinline__ void multiply(u32 steps, u32 shared, Sums &sums, Rows &rows) {
        show_to_products(); // and to copies: they overwrite the result of the tile before
        __syncthreads();    // which has been read
        if (threadIdx.x == 0)
            for (int place = AHEAD; place < STAGES; place++) copy(shared, place);
        __syncwarp();
        u32 place = 0, before = 0;
#pragma unroll 1
        for (u32 step = 0; step < steps; step++) {
            barrier_wait(places->full + 8 * place, places->parity(place));
            multiply_tile<A_ALONG_K, B_ALONG_K>(shared + place * STAGE_BYTES, sums, rows);
            products_wait<1>();
            if (step > 0) release(shared, before);
            before = place;
            place = place + 1 == STAGES ? 0 : place + 1;
        }
        products_wait<0>();
        release(shared, before);
        __syncthreads(); // nobody reads a tile any more
    }
};
