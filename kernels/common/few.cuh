// Two or four neighbouring elements at an address aligned to their size, in one access.
#pragma once

#include "common/element.cuh"

__device__ __forceinline__ void load_few(const float *at, float (&v)[4]) { load_pack(at, v); }
__device__ __forceinline__ void load_few(const float *at, float (&v)[2]) {
    float2 both = *reinterpret_cast<const float2 *>(at);
    v[0] = both.x, v[1] = both.y;
}
__device__ __forceinline__ void load_few(const bf16 *at, float (&v)[2]) {
    u32 both = *reinterpret_cast<const u32 *>(at);
    v[0] = __uint_as_float(both << 16), v[1] = __uint_as_float(both & 0xffff0000u);
}
__device__ __forceinline__ void load_few(const bf16 *at, float (&v)[4]) {
    uint2 words = *reinterpret_cast<const uint2 *>(at);
    v[0] = __uint_as_float(words.x << 16), v[1] = __uint_as_float(words.x & 0xffff0000u);
    v[2] = __uint_as_float(words.y << 16), v[3] = __uint_as_float(words.y & 0xffff0000u);
}

__device__ __forceinline__ void store_few(float *at, const float (&v)[4]) { store_pack(at, v); }
__device__ __forceinline__ void store_few(float *at, const float (&v)[2]) {
    *reinterpret_cast<float2 *>(at) = make_float2(v[0], v[1]);
}
__device__ __forceinline__ void store_few(bf16 *at, const float (&v)[4]) {
    *reinterpret_cast<uint2 *>(at) = make_uint2(pack_bf16(v[0], v[1]), pack_bf16(v[2], v[3]));
}
__device__ __forceinline__ void store_few(bf16 *at, const float (&v)[2]) {
    *reinterpret_cast<u32 *>(at) = pack_bf16(v[0], v[1]);
}

// Four to an aligned address of global memory, as one instruction: see store_global.
__device__ __forceinline__ void store_few_global(float *at, const float (&v)[4]) { store_pack_global(at, v); }
__device__ __forceinline__ void store_few_global(bf16 *at, const float (&v)[4]) {
    const u32 low = pack_bf16(v[0], v[1]), high = pack_bf16(v[2], v[3]);
    asm volatile("st.global.v2.u32 [%0], {%1, %2};" ::"l"(at), "r"(low), "r"(high) : "memory");
}
