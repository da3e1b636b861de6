// Element types, 16-byte access and names, for every family. No header of the toolkit is included.
//
// A file is compiled once with ELEMENT_F32 and once with ELEMENT_BF16. Arithmetic is in float32 either way.
#pragma once

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef int i32;
typedef long long i64;

// bfloat16 as it lies in memory: the upper half of a float32.
struct bf16 {
    u16 bits;
};

__device__ __forceinline__ float to_float(float x) { return x; }
__device__ __forceinline__ float to_float(bf16 x) { return __uint_as_float(u32(x.bits) << 16); }

// Rounds to nearest, ties to even; NaN stays NaN.
__device__ __forceinline__ void from_float(float x, float &out) { out = x; }
__device__ __forceinline__ void from_float(float x, bf16 &out) {
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(out.bits) : "f"(x));
}

// Two values to the halves of one word, the first in the lower half.
__device__ __forceinline__ u32 pack_bf16(float low, float high) {
    u32 word;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(word) : "f"(high), "f"(low));
    return word;
}

// Elements of 16 bytes.
template <typename T> constexpr int per_pack = 16 / sizeof(T);

// 16 bytes at an aligned address to floats and back.
__device__ __forceinline__ void load_pack(const float *at, float (&v)[4]) {
    float4 pack = *reinterpret_cast<const float4 *>(at);
    v[0] = pack.x, v[1] = pack.y, v[2] = pack.z, v[3] = pack.w;
}
__device__ __forceinline__ void load_pack(const bf16 *at, float (&v)[8]) {
    uint4 pack = *reinterpret_cast<const uint4 *>(at);
    const u32 words[4] = {pack.x, pack.y, pack.z, pack.w};
#pragma unroll
    for (int i = 0; i < 4; i++) {
        v[2 * i] = __uint_as_float(words[i] << 16);
        v[2 * i + 1] = __uint_as_float(words[i] & 0xffff0000u);
    }
}
__device__ __forceinline__ void store_pack(float *at, const float (&v)[4]) {
    *reinterpret_cast<float4 *>(at) = make_float4(v[0], v[1], v[2], v[3]);
}
__device__ __forceinline__ void store_pack(bf16 *at, const float (&v)[8]) {
    *reinterpret_cast<uint4 *>(at) =
        make_uint4(pack_bf16(v[0], v[1]), pack_bf16(v[2], v[3]), pack_bf16(v[4], v[5]), pack_bf16(v[6], v[7]));
}

// 16 bytes to an aligned address of global memory, as one instruction: in a loop the compiler makes four stores of the
// assignment in store_pack (NVRTC 12.9).
__device__ __forceinline__ void store_global(void *at, u32 a, u32 b, u32 c, u32 d) {
    asm volatile("st.global.v4.u32 [%0], {%1, %2, %3, %4};" ::"l"(at), "r"(a), "r"(b), "r"(c), "r"(d) : "memory");
}
__device__ __forceinline__ void store_pack_global(float *at, const float (&v)[4]) {
    store_global(at, __float_as_uint(v[0]), __float_as_uint(v[1]), __float_as_uint(v[2]), __float_as_uint(v[3]));
}
__device__ __forceinline__ void store_pack_global(bf16 *at, const float (&v)[8]) {
    store_global(at, pack_bf16(v[0], v[1]), pack_bf16(v[2], v[3]), pack_bf16(v[4], v[5]), pack_bf16(v[6], v[7]));
}

// How a kernel reads what is made of whole packs: by packs of 16 bytes, or where addresses do not allow that by the
// same packs element by element, so that every thread has the same elements and sums have the same order; or by
// elements, where there are no whole packs.
constexpr u32 BY_ELEMENT = 0, BY_PACK = 1, BY_SPLIT_PACK = 2;

template <typename T, int WIDTH>
__device__ __forceinline__ void load_pack(const T *at, float (&v)[WIDTH], bool aligned) {
    if (aligned) return load_pack(at, v);
#pragma unroll
    for (int i = 0; i < WIDTH; i++) v[i] = to_float(at[i]);
}
template <typename T, int WIDTH>
__device__ __forceinline__ void store_pack(T *at, const float (&v)[WIDTH], bool aligned) {
    if (aligned) return store_pack(at, v);
#pragma unroll
    for (int i = 0; i < WIDTH; i++) from_float(v[i], at[i]);
}

// The element type of this compilation, and entry points named after it: ENTRY(add) is add_f32 or add_bf16.
#if defined(ELEMENT_F32)
typedef float element;
#define ENTRY(name) name##_f32
#elif defined(ELEMENT_BF16)
typedef bf16 element;
#define ENTRY(name) name##_bf16
#endif

#if defined(ELEMENT_F32) || defined(ELEMENT_BF16)
// Elements of a pack of this compilation's type.
constexpr int PACK = per_pack<element>;
#endif

#define KERNEL extern "C" __global__ void
