// Batch normalisation and ReLU of packs of bf16 that lie in shared memory, on their way to a product.
#pragma once

#include "common/mma_tile.cuh"
#include "common/normalise.cuh"

__device__ __forceinline__ uint2 load_shared(u32 at) {
    uint2 bits;
    asm volatile("ld.shared.v2.b32 {%0, %1}, [%2];" : "=r"(bits.x), "=r"(bits.y) : "r"(at) : "memory");
    return bits;
}

// Where `wanted` is not 0; else nothing. The predicate is the instruction's own: ptxas has 7, and keeps those of many packs.
__device__ __forceinline__ void store_shared_if(u32 wanted, u32 at, uint2 bits) {
    asm volatile("{\n"
                 "  .reg .pred wanted;\n"
                 "  setp.ne.b32 wanted, %3, 0;\n"
                 "  @wanted st.shared.v2.b32 [%0], {%1, %2};\n"
                 "}" ::"r"(at),
                 "r"(bits.x), "r"(bits.y), "r"(wanted)
                 : "memory");
}

// max(low, 0) and max(high, 0) rounded to the halves of one word; NaN stays NaN.
__device__ __forceinline__ u32 pack_relu_bf16(float low, float high) {
    u32 word;
    asm("cvt.rn.relu.bf16x2.f32 %0, %1, %2;" : "=r"(word) : "f"(high), "f"(low));
    return word;
}

// relu(normalised(x)) of four elements, whose channels' numbers these are.
__device__ __forceinline__ uint2 normalise_four(uint2 bits, float4 mean, float4 scale, float4 offset) {
    const float x = __uint_as_float(bits.x << 16), y = __uint_as_float(bits.x & 0xffff0000u);
    const float z = __uint_as_float(bits.y << 16), w = __uint_as_float(bits.y & 0xffff0000u);
    return make_uint2(
        pack_relu_bf16(normalised(x, mean.x, scale.x, offset.x), normalised(y, mean.y, scale.y, offset.y)),
        pack_relu_bf16(normalised(z, mean.z, scale.z, offset.z), normalised(w, mean.w, scale.w, offset.w))
    );
}

// Puts relu(normalised(x)) in the place of x in the COUNT packs that this thread has in the tile at `tile`, all of the same
// 8 channels from `channel` on, where meets(j); the others stay as they are. Halves of packs, so that few numbers of the
// map are in registers at a time; every second group of eight threads begins with the upper half, so that those that
// access the banks together reach all of them.
template <typename Packs, typename F>
__device__ __forceinline__ void normalise_packs(u32 tile, const ChannelMap &map, u32 channel, F meets) {
    constexpr int COUNT = Packs::COUNT, TOGETHER = COUNT < 4 ? COUNT : 4;
    static_assert(COUNT % TOGETHER == 0, "packs are read four at a time, or all");
#pragma unroll 1
    for (int step = 0; step < 2; step++) {
        const u32 half = threadIdx.x / 8 % 2 ^ step;
        const float *at = map.values + channel + 4 * half;
        const float4 mean = *reinterpret_cast<const float4 *>(at);
        const float4 scale = *reinterpret_cast<const float4 *>(at + map.stride);
        const float4 offset = *reinterpret_cast<const float4 *>(at + 2 * map.stride);
#pragma unroll
        for (int first = 0; first < COUNT; first += TOGETHER) {
            uint2 bits[TOGETHER];
#pragma unroll
            for (int j = 0; j < TOGETHER; j++) bits[j] = load_shared(tile + Packs::place(first + j) + 8 * half);
#pragma unroll
            for (int j = 0; j < TOGETHER; j++) {
                const uint2 result = normalise_four(bits[j], mean, scale, offset);
                store_shared_if(meets(first + j), tile + Packs::place(first + j) + 8 * half, result);
            }
        }
    }
}
