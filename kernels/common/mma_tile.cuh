// The loop of matrix products on tensor cores: the sums of a tile of the result, in float32, from bf16 operands, or from
// float32 ones that are rounded to tf32 (ELEMENT_F32).
//
// A block computes TILE_M x TILE_N sums, each of its warps WARP_M x WARP_N of them, in steps of TILE_K, 128 bytes of a
// row. Operand A has TILE_M rows, operand B has TILE_N, and a row holds its element of every step. STAGES tiles of each
// operand are in shared memory: while the warps multiply one, copies of the next ones are on the way. An operand's tile lies
// in shared memory as it does in global memory, along k or along the rows. Packs of 16 bytes are exchanged (swizzled) so
// that no access has a bank conflict. Warps multiply fragments that they load from there (common/mma_loop.cuh), or with
// WGMMA, on Hopper, warpgroups multiply the tiles where they lie (common/wgmma_loop.cuh; of matrices, common/wgmma_boxes.cuh).
//
// Defines: TILE_M, TILE_N, WARP_M, WARP_N; with WGMMA WARP_M is 16 and WARP_N is TILE_N.
#pragma once

#include "common/cp_async.cuh"
#include "common/mma.cuh"
#if defined(WGMMA)
#include "common/wgmma.cuh"
#endif

constexpr int TILE_K = 128 / sizeof(element);
#if defined(WGMMA)
#if defined(NORMALISED)
constexpr int BLOCKS = TILE_N > 128 ? 1 : 2;
#else
constexpr int BLOCKS = TILE_N > 128 ? 1 : TILE_N > 64 ? 2 : 3; // that a multiprocessor is to hold
#endif
constexpr int STAGES = BLOCKS == 1 ? 4 : 3;
constexpr int ON_THE_WAY = BLOCKS == 1 ? 1 : 0;            // tiles that are multiplied when the next one is waited for
constexpr int AHEAD = STAGES - 1 - ON_THE_WAY;             // tiles whose copies are on the way
constexpr u32 ALIGNMENT = 1024;                            // of the tiles in shared memory
static_assert(WARP_M == 16 && WARP_N == TILE_N && TILE_M % 64 == 0, "as products of warpgroups are");
#else
constexpr int BLOCKS = 1;
constexpr int STAGES = 3;
constexpr u32 ALIGNMENT = 128;
#endif
constexpr int WARPS_N = TILE_N / WARP_N;
constexpr int WARPS = TILE_M / WARP_M * WARPS_N;           // that share out the results
constexpr int SLICES = WARPS == 1 ? 4 : 1;                 // warps that share out the steps: common/sliced_tile.cuh
constexpr int THREADS = 32 * WARPS * SLICES;
constexpr int TILES_M = WARP_M / 16, TILES_N = WARP_N / 8; // mma results of a warp
constexpr int OWN_M = TILES_M / SLICES;                    // rows of mma results that a warp has in the end

constexpr u32 ROW_BYTES = 128;                   // of an operand along k
constexpr u32 A_BYTES = TILE_M * ROW_BYTES;      // of A's tile; B's lies behind it
constexpr u32 STAGE_BYTES = A_BYTES + TILE_N * ROW_BYTES;
constexpr u32 LOOP_BYTES = STAGES * STAGE_BYTES; // of shared memory in all
#if defined(WGMMA)
constexpr u32 STARTED_BYTES = AHEAD * STAGE_BYTES; // of it that start_copies() writes
#else
constexpr u32 STARTED_BYTES = 0;
#endif

// What lies along a warp's sums: [mma tile of 16 rows][mma tile of 8 columns][fragment].
typedef float Sums[TILES_M][TILES_N][4];

// Where a warp's results are, after the loop.
__device__ __forceinline__ u32 warp_row() { return threadIdx.x / 32 / WARPS_N * 16 * OWN_M; }
__device__ __forceinline__ u32 warp_column() { return threadIdx.x / 32 % WARPS_N * WARP_N; }
__device__ __forceinline__ u32 slice_of_warp() { return threadIdx.x / 32 / WARPS; }

// How the threads of a block share out the packs of an operand's tile: COUNT each, JUMP rows (along k) or steps (along
// the rows) apart, the first at outer() of those and inner() elements of the contiguous direction.
template <int ROWS, bool ALONG_K> struct Share {
    static constexpr int WIDTH = (ALONG_K ? TILE_K : ROWS) / PACK; // packs of the contiguous direction
    static constexpr int JUMP = THREADS / WIDTH;
    static constexpr int COUNT = ROWS * TILE_K / PACK / THREADS;
#if defined(WGMMA)
    static constexpr bool IN_GROUPS = !ALONG_K; // of 64 rows, one behind the other
#else
    static constexpr bool IN_GROUPS = false;
#endif
    static constexpr u32 JUMP_BYTES = JUMP * (IN_GROUPS ? 8 : WIDTH) * 16;
    static constexpr int PERIOD = ALONG_K || PACK == 8 ? 8 : 4; // of the exchange of packs, in the outer direction
    static_assert(JUMP % PERIOD == 0 || 2 * JUMP == PERIOD, "packs of a thread are swizzled alike, or alternate");
    static __device__ __forceinline__ u32 outer() { return threadIdx.x / WIDTH; }
    static __device__ __forceinline__ u32 inner() { return threadIdx.x % WIDTH * PACK; }
    // Bytes from the tile's start to this thread's pack j.
    static __device__ __forceinline__ u32 place(int j) {
        const u32 pack = threadIdx.x % WIDTH;
        if constexpr (IN_GROUPS)
            return pack / 8 * 64 * ROW_BYTES + 16 * swizzled<8>(outer(), pack % 8) + j * JUMP_BYTES;
        const u32 first = 16 * (PERIOD == 8 ? swizzled<WIDTH>(outer(), pack) : swizzled_words<WIDTH>(outer(), pack));
        return (first ^ (2 * JUMP == PERIOD ? 64 * (j % 2) : 0)) + j * JUMP_BYTES;
    }
};

// A matrix as an operand: ROWS rows from `first_row` on, steps k from `first_k` to `end_k`. Its contiguous direction is
// k or the rows; in the other, `stride` elements lead on. Both ends of the contiguous direction, and stride, are
// multiples of a pack, and rows are aligned to 16 bytes. What is outside becomes zero.
template <int ROWS, bool ALONG_K> struct DenseOperand {
    using Packs = Share<ROWS, ALONG_K>;
    static constexpr int COUNT = Packs::COUNT;
    static constexpr u32 ALL_RAGGED = 1u << 30;
    const element *at; // this thread's first pack of the next tile
    u32 stride;
    i32 outer, inner;  // rows and steps from its place in the next tile to the ends: none, where they are not above 0
    u32 ragged;        // tiles of the block that have packs outside: none, the last one, or all

    __device__ __forceinline__ DenseOperand(
        const element *base, u32 stride, u32 first_row, u32 rows, u32 first_k, u32 end_k
    ) : stride(stride) {
        const u32 from = (ALONG_K ? first_row : first_k) + Packs::outer();
        const u32 beside = (ALONG_K ? first_k : first_row) + Packs::inner();
        outer = (ALONG_K ? rows : end_k) - from;
        inner = (ALONG_K ? end_k : rows) - beside;
        if (!ALONG_K && inner <= 0) outer = 0;
        ragged = first_row + ROWS > rows ? ALL_RAGGED : (end_k - first_k) % TILE_K != 0;
        at = base + u64(from) * stride + beside;
    }

    // Copies packs `from` to `to`, which the compiler knows, of the next tile to the tile at `tile` of shared memory,
    // where that is wanted.
    __device__ __forceinline__ void copy(u32 tile, int from, int to, bool wanted) {
        const i32 left = !ALONG_K || inner > 0 ? outer : 0;
#pragma unroll
        for (int j = from; j < to; j++)
            copy_async_if(wanted, tile + Packs::place(j), at + u64(stride) * (j * Packs::JUMP),
                          j * Packs::JUMP < left ? 16 : 0);
    }

    // The same of all packs of a tile that has none outside. `first`: of shared memory, the place of this thread's first.
    __device__ __forceinline__ void copy_whole(u32 first, bool wanted) {
        static_assert(Packs::JUMP % Packs::PERIOD == 0, "packs of a thread are swizzled alike");
        const char *from = reinterpret_cast<const char *>(at);
#pragma unroll
        for (int j = 0; j < COUNT; j++)
            copy_async_if(wanted, first + j * Packs::JUMP_BYTES, from + u64(stride) * u32(j * Packs::JUMP * sizeof(element)));
    }

    // What the compiler has made of the stride and the next tile's address is not to be kept in registers from here on.
    __device__ __forceinline__ void forget() { asm volatile("" : "+l"(at), "+r"(stride)); }

    // Goes on by TILE_K steps, behind the last pack.
    __device__ __forceinline__ void advance() {
        at += ALONG_K ? TILE_K : u64(stride) * TILE_K;
        // An instruction makes the place of a pack from the stride. Of many packs the compiler would keep all distances in
        // registers instead.
        if constexpr (COUNT > 4) asm volatile("" : "+r"(stride));
        if (ALONG_K)
            inner -= TILE_K;
        else
            outer -= TILE_K;
    }
};

// What a thread does with the packs that it copied to the tile at `tile`, once they have arrived and before others read
// them: nothing, unless an operand has an overload. The tile that it copies next is `behind` tiles behind that one.
template <typename Operand> __device__ __forceinline__ void arrived(Operand &, u32, int behind) {}

// What operand B does for tiles to come, behind every tile or every second one: nothing, unless it has an overload.
template <typename Operand> __device__ __forceinline__ void look_ahead(Operand &) {}

// Whether an operand has copy_whole(), and what goes with it in common/sliced_tile.cuh.
template <typename Operand> constexpr bool goes_in_rounds = false;
template <int ROWS, bool ALONG_K> constexpr bool goes_in_rounds<DenseOperand<ROWS, ALONG_K>> = true;

// start_copies(a, b, shared) starts what copies multiply() begins with. Warpgroups' blocks do it before they store the result of
// the tile before; where warps multiply it does nothing.
//
// multiply<A_ALONG_K, B_ALONG_K>(a, b, steps, shared, sums, rows) adds the products of `steps` tiles of TILE_K steps, at least
// one, after start_copies(). An operand has COUNT packs a thread, copy() and advance(), as DenseOperand. `shared`: LOOP_BYTES, aligned to ALIGNMENT.
// `rows`: RowSums, or NoRowSums, which is nothing. Afterwards nobody uses them any more, and the first
// OWN_M of a warp's rows of sums are those of the rows from warp_row() on. False, to all threads, if the sums have to be
// made again: never of bf16.
#if defined(WGMMA)
#include "common/wgmma_loop.cuh"
#else
#include "common/mma_loop.cuh"
#endif
