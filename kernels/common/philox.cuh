// Counter-based random numbers: Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011), the
// same bits as engine::random.
#pragma once

#include "common/element.cuh"

struct Words {
    u32 a, b, c, d;
};

// Ten rounds on a counter under a key.
__device__ __forceinline__ Words philox4x32_10(Words counter, u32 key0, u32 key1) {
#pragma unroll
    for (int round = 0; round < 10; round++) {
        const u32 a = 0xd2511f53u, b = 0xcd9e8d57u;
        counter = {__umulhi(b, counter.c) ^ counter.b ^ key0, b * counter.c,
                   __umulhi(a, counter.a) ^ counter.d ^ key1, a * counter.a};
        key0 += 0x9e3779b9u, key1 += 0xbb67ae85u;
    }
    return counter;
}

// A stream of engine::Philox, addressed by block.
struct Stream {
    u64 seed, index;
    u32 purpose, unused;
};
static_assert(sizeof(Stream) == 24, "as the host passes it");

// The four words of a block.
__device__ __forceinline__ Words stream_block(const Stream &s, u32 block) {
    return philox4x32_10({block, u32(s.index), u32(s.index >> 32), s.purpose}, u32(s.seed), u32(s.seed >> 32));
}

// Uniform in [0, 1), a multiple of 2^-24.
__device__ __forceinline__ float unit_uniform(u32 word) { return float(word >> 8) * (1.0f / (1 << 24)); }
