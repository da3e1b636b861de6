// What the kernels of mma.cu are told of a product, and which piece of it a block computes.
//
// Defines: those of common/mma_tile.cuh, A_BY_STEPS and B_BY_STEPS.
#pragma once

#include "common/divisor.cuh"
#include "common/mma_tile.cuh"
#if defined(WGMMA)
#include "common/wgmma_boxes.cuh"
#endif

struct Product {
    u32 m, n, k;
    u32 part; // steps k that a block sums
    u32 a_stride, b_stride;
    u64 a_batch, b_batch;   // elements from a product's operand to the next product's
    u64 results;            // of all products
    Divisor tiles, parts;   // of a product, of a sum
    Divisor group;          // tiles of GROUP rows of tiles
    u32 tiles_m;
    u32 together;           // whether results are accessed by packs
    u32 blocks;             // tiles and parts of all products
};
static_assert(sizeof(Product) == 96, "as in kernels/src/matmul/mma.rs");

// Blocks that run at the same time are to share operands in the second-level cache: tiles go down GROUP rows, then on
// by a column.
constexpr u32 GROUP = 8;

// Where the tile with this number is.
__device__ __forceinline__ uint2 place_of(u32 tile, const Product &z) {
    const u32 top = take_quotient(tile, z.group) * GROUP;
    const u32 height = min(z.tiles_m - top, GROUP);
    const u32 column = height == GROUP ? tile / GROUP : tile / height;
    return make_uint2(top + tile - column * height, column);
}

// What a block computes: which product, which part of its sums, from which row and column on, and steps.
struct Block {
    u32 batch, part, first_m, first_n, first_k, end_k;
    __device__ __forceinline__ Block(u32 number, const Product &z) {
        batch = number;
        const uint2 place = place_of(take_remainder(batch, z.tiles), z);
        part = take_remainder(batch, z.parts);
        first_m = place.x * TILE_M, first_n = place.y * TILE_N;
        first_k = part * z.part, end_k = min(first_k + z.part, z.k);
    }
    __device__ __forceinline__ u32 steps() const { return (end_k - first_k + TILE_K - 1) / TILE_K; }
#if defined(WGMMA)
    typedef Boxes<TILE_M, A_BY_STEPS, TILE_N, B_BY_STEPS> Operands;
    __device__ __forceinline__ Operands operands(const TensorMap &a, const TensorMap &b, Places &places) const {
        return {&places, {&a, first_m, first_k, batch}, {&b, first_n, first_k, batch}, steps()};
    }
#else
    __device__ __forceinline__ DenseOperand<TILE_M, A_BY_STEPS> left(const element *a, const Product &z) const {
        return {a + batch * z.a_batch, z.a_stride, first_m, z.m, first_k, end_k};
    }
    __device__ __forceinline__ DenseOperand<TILE_N, B_BY_STEPS> right(const element *b, const Product &z) const {
        return {b + batch * z.b_batch, z.b_stride, first_n, z.n, first_k, end_k};
    }
    struct Operands {
        DenseOperand<TILE_M, A_BY_STEPS> left;
        DenseOperand<TILE_N, B_BY_STEPS> right;
        __device__ __forceinline__ void start(u32) {}
        template <typename Rows> __device__ __forceinline__ bool multiply(u32 steps, u32 shared, Sums &sums, Rows &rows) {
            return ::multiply<A_BY_STEPS, B_BY_STEPS>(left, right, steps, shared, sums, rows);
        }
    };
    __device__ __forceinline__ Operands operands(const element *a, const element *b, const Product &z) const {
        return {left(a, z), right(b, z)};
    }
#endif
};
