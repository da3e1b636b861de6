// Vectors that stream through shared memory, a tile of TOGETHER after the other, by the THREADS threads of a block. A
// thread copies the same pack of several vectors of each tile: what it needs is worked out once, and a copy is then the
// address, the test for the end and the copy itself. Needs common/vector_tiles.cuh.
#pragma once

template <int TOGETHER, int THREADS> struct Stream {
    static constexpr int JUMP = THREADS / PACKS; // vectors from a thread's pack to its next one
    static_assert(JUMP % 4 == 0 && TOGETHER % JUMP == 0, "a thread's packs are swizzled alike, or alternate");
    const char *at; // this thread's pack of the next tile's first vectors
    u32 bytes;      // of a vector in global memory
    u32 place;      // of the pack in a tile
    int left;       // vectors from there to the end; none where the pack is behind the vectors' own size

    // Vectors first .. end - 1 of `size` elements; those behind become zeros.
    __device__ __forceinline__ Stream(const element *vectors, int size, int first, int end) {
        const int vector = threadIdx.x / PACKS, pack = threadIdx.x % PACKS;
        at = reinterpret_cast<const char *>(vectors + u64(first + vector) * size + 8 * pack);
        bytes = 2 * size;
        place = 16 * swizzled<PACKS>(vector, pack);
        left = 8 * pack < size ? end - first - vector : 0;
    }

    // Starts the copy of the next tile.
    __device__ __forceinline__ void copy(u32 tile) {
#pragma unroll
        for (int i = 0; i < TOGETHER; i += JUMP)
            copy_async((tile + place ^ 16 * (i % 8)) + i * ROW_BYTES, at + u64(bytes) * i, i < left ? 16 : 0);
        at += u64(bytes) * TOGETHER;
        left -= TOGETHER;
    }
};
