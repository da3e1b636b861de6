// multiply() of common/mma_tile.cuh on Hopper, of bf16: a warpgroup multiplies tiles where they lie in shared memory, so that
// no fragment of an operand passes through registers.
//
// A warp has 16 rows of all the tile's columns, four neighbours are a warpgroup. Every tile's products are on the way while the
// warps start copies of later tiles. In the widest tile they are still on the way at the next tile's barrier, so that the
// tensor cores never wait for it; a place is then written two tiles after it was read. Smaller tiles leave that to the other
// block of the multiprocessor.
#pragma once

// Nothing beside the sums.
struct NoRowSums {
    template <bool A_ALONG_K> __device__ __forceinline__ void add(u64) {}
};

// The sums of A's rows over all steps: products with a matrix of ones, which takes `ones` of shared memory. In the end
// element [0][2 j] is that of row warp_row() + 8 j + lane / 4.
struct RowSums {
    float sums[1][4] = {};
    u64 ones;
    __device__ __forceinline__ RowSums(u32 (&room)[64]) : ones(eight_columns_at(shared_address(room))) {
        constexpr u32 ONES = 0x3f803f80;
        if (threadIdx.x < 64) room[threadIdx.x] = ONES;
        show_to_products(); // behind the loop's first barrier
    }
    template <bool A_ALONG_K> __device__ __forceinline__ void add(u64 a) { multiply_steps<A_ALONG_K, true>(sums, a, ones); }
};

// Adds the products of the tile at `tile`, as a group.
template <bool A_ALONG_K, bool B_ALONG_K, typename Rows>
__device__ __forceinline__ void multiply_tile(u32 tile, Sums &sums, Rows &rows) {
    constexpr u32 GROUP_BYTES = 64 * ROW_BYTES; // of 64 rows, whichever way they lie
    const u32 warpgroup = __shfl_sync(0xffffffff, threadIdx.x / 128, 0); // which the compiler knows then to be the warp's
    const u64 left = matrix_at<A_ALONG_K>(tile + warpgroup * GROUP_BYTES, GROUP_BYTES);
    const u64 right = matrix_at<B_ALONG_K>(tile + A_BYTES, GROUP_BYTES);
    products_begin();
#pragma unroll
    for (int k = 0; k < TILE_K / 16; k++) {
        const u64 part = next_steps<A_ALONG_K>(left, k);
        multiply_steps<A_ALONG_K, B_ALONG_K>(sums[0], part, next_steps<B_ALONG_K>(right, k));
        rows.template add<A_ALONG_K>(part);
    }
    products_commit();
}

template <typename A, typename B> __device__ __forceinline__ void start_copies(A &a, B &b, u32 shared) {
#pragma unroll
    for (int stage = 0; stage < AHEAD; stage++) {
        a.copy(shared + stage * STAGE_BYTES, 0, A::COUNT, true);
        b.copy(shared + stage * STAGE_BYTES + A_BYTES, 0, B::COUNT, true);
        a.advance(), b.advance();
        copy_commit();
    }
}

template <bool A_ALONG_K, bool B_ALONG_K, typename A, typename B, typename Rows>
__device__ __forceinline__ bool multiply(A &a, B &b, u32 steps, u32 shared, Sums &sums, Rows &rows) {
    const u32 end = shared + LOOP_BYTES;
    u32 read = shared, write = shared + AHEAD * STAGE_BYTES;
#pragma unroll 1
    for (; steps > 0; steps--) {
        copy_wait<AHEAD - 1>();
        arrived(a, read, AHEAD), arrived(b, read + A_BYTES, AHEAD);
        show_to_products();
        // This tile has arrived for everybody, and nobody's products read any more what is written next.
        __syncthreads();
        multiply_tile<A_ALONG_K, B_ALONG_K>(read, sums, rows);
        const bool more = steps > AHEAD; // there is a tile to copy
        a.copy(write, 0, A::COUNT, more);
        b.copy(write + A_BYTES, 0, B::COUNT, more);
        a.advance(), b.advance();
        copy_commit();
        look_ahead(b);
        read = read + STAGE_BYTES == end ? shared : read + STAGE_BYTES;
        write = write + STAGE_BYTES == end ? shared : write + STAGE_BYTES;
        products_wait<ON_THE_WAY>();
    }
    products_wait<0>();
    copy_wait<0>();
    __syncthreads(); // nobody reads or writes a tile any more
    return true;
}
