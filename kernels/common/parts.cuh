// Packs of 16 bytes that may be cut short by the end of a row, or that do not start at a multiple of 16 bytes.
//
// `packed` says that packs are neither: `count` is 0, less, or at least PACK.
#pragma once

#include "common/element.cuh"

// `count` elements at `at`, at most PACK, as floats; 0 behind them.
__device__ __forceinline__ void load_part(const element *at, int count, bool packed, float (&v)[PACK]) {
    if (packed && count > 0) return load_pack(at, v);
    if (packed) count = 0;
#pragma unroll
    for (int i = 0; i < PACK; i++) v[i] = i < count ? to_float(at[i]) : 0.0f;
}

// 16 bytes to device memory in one access. (Of equal stores in an unrolled loop NVRTC 12.9 splits some into words.)
__device__ __forceinline__ void store_bits(void *at, uint4 bits) {
    asm volatile("st.global.v4.b32 [%0], {%1, %2, %3, %4};" ::"l"(__cvta_generic_to_global(at)), "r"(bits.x),
                 "r"(bits.y), "r"(bits.z), "r"(bits.w)
                 : "memory");
}
__device__ __forceinline__ uint4 pack(const float (&v)[4]) {
    return make_uint4(__float_as_uint(v[0]), __float_as_uint(v[1]), __float_as_uint(v[2]), __float_as_uint(v[3]));
}
__device__ __forceinline__ uint4 pack(const float (&v)[8]) {
    return make_uint4(pack_bf16(v[0], v[1]), pack_bf16(v[2], v[3]), pack_bf16(v[4], v[5]), pack_bf16(v[6], v[7]));
}

// The inverse of load_part; each value is rounded to the element type.
__device__ __forceinline__ void store_part(element *at, int count, bool packed, const float (&v)[PACK]) {
    if (packed && count > 0) return store_bits(at, pack(v));
    if (packed) return;
#pragma unroll
    for (int i = 0; i < PACK; i++)
        if (i < count) from_float(v[i], at[i]);
}

// load_part of a float array, whatever the element type.
__device__ __forceinline__ void load_floats(const float *at, int count, bool packed, float (&v)[PACK]) {
    if (packed && count > 0) {
#pragma unroll
        for (int i = 0; i < PACK; i += 4) {
            const float4 four = *reinterpret_cast<const float4 *>(at + i);
            v[i] = four.x, v[i + 1] = four.y, v[i + 2] = four.z, v[i + 3] = four.w;
        }
        return;
    }
    if (packed) count = 0;
#pragma unroll
    for (int i = 0; i < PACK; i++) v[i] = i < count ? at[i] : 0.0f;
}

// load_floats of packed floats by all lanes of a warp at once, in groups of `lanes`, a power of two from 2 to 32, which
// have one pack behind the other. In bf16 a lane has 32 bytes of floats, and two requests for 16 of them at a stride
// of 32 would use half of each sector. So the first request reads the first half of the group's floats, in which lower
// lanes of the group have both of their fours and upper lanes none, the second the rest, and lanes that are half a
// group apart exchange a four. `count` floats are there from the lane's pack on, those of the lanes behind it included;
// less than 1 where the pack is behind the end.
__device__ __forceinline__ void load_floats_together(const float *at, int count, int lanes, float (&v)[PACK]) {
    if constexpr (PACK == 4) {
        load_floats(at, count, true, v);
    } else {
        const bool upper = threadIdx.x & (lanes / 2);
        const int first = upper ? 4 - 4 * lanes : 0, second = first + 4 * lanes;
        const float4 zero = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
        const float4 a = first < count ? *reinterpret_cast<const float4 *>(at + first) : zero;
        const float4 b = second < count ? *reinterpret_cast<const float4 *>(at + second) : zero;
        const float low[4] = {a.x, a.y, a.z, a.w}, high[4] = {b.x, b.y, b.z, b.w};
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const float other = __shfl_xor_sync(0xffffffffu, upper ? low[i] : high[i], lanes / 2);
            v[i] = upper ? other : low[i];
            v[i + 4] = upper ? high[i] : other;
        }
    }
}

// load_floats by all lanes of a warp at once, which have one pack behind the other: `count` as above.
__device__ __forceinline__ void load_warp_floats(const float *at, int count, bool packed, float (&v)[PACK]) {
    if (packed) return load_floats_together(at, count, 32, v);
    load_floats(at, count, false, v);
}

// What a value becomes when it is stored and read again.
__device__ __forceinline__ float rounded(float x) {
    element stored;
    from_float(x, stored);
    return to_float(stored);
}

// A pack as its bits: half the registers of its floats in bf16.
__device__ __forceinline__ uint4 load_bits(const float *at, int count, bool packed) {
    if (packed) return count > 0 ? *reinterpret_cast<const uint4 *>(at) : make_uint4(0, 0, 0, 0);
    return make_uint4(count > 0 ? __float_as_uint(at[0]) : 0, count > 1 ? __float_as_uint(at[1]) : 0,
                      count > 2 ? __float_as_uint(at[2]) : 0, count > 3 ? __float_as_uint(at[3]) : 0);
}
__device__ __forceinline__ uint4 load_bits(const bf16 *at, int count, bool packed) {
    if (packed) return count > 0 ? *reinterpret_cast<const uint4 *>(at) : make_uint4(0, 0, 0, 0);
    u32 words[4];
#pragma unroll
    for (int i = 0; i < 4; i++) {
        const u32 low = 2 * i < count ? at[2 * i].bits : 0, high = 2 * i + 1 < count ? at[2 * i + 1].bits : 0;
        words[i] = low | high << 16;
    }
    return make_uint4(words[0], words[1], words[2], words[3]);
}
__device__ __forceinline__ void unpack(uint4 bits, float (&v)[4]) {
    v[0] = __uint_as_float(bits.x), v[1] = __uint_as_float(bits.y);
    v[2] = __uint_as_float(bits.z), v[3] = __uint_as_float(bits.w);
}
__device__ __forceinline__ void unpack(uint4 bits, float (&v)[8]) {
    const u32 words[4] = {bits.x, bits.y, bits.z, bits.w};
#pragma unroll
    for (int i = 0; i < 4; i++) {
        v[2 * i] = __uint_as_float(words[i] << 16);
        v[2 * i + 1] = __uint_as_float(words[i] & 0xffff0000u);
    }
}

// Element i of a pack.
__device__ __forceinline__ float pick(uint4 bits, int i) {
    float v[PACK];
    unpack(bits, v);
    return v[i];
}

// Makes the compiler forget what it made of a pack, so that its floats do not stay in registers until used again.
__device__ __forceinline__ void forget(uint4 &bits) {
    asm volatile("" : "+r"(bits.x), "+r"(bits.y), "+r"(bits.z), "+r"(bits.w));
}

// A number that is known when the program is compiled, as a value.
template <int N> struct Number {
    static constexpr int value = N;
};

// Elements of a row that a warp holds in registers at most.
constexpr int WARP_ROW = 1024;

// Calls f with a power of two of packs, at least those that a lane of a warp has of a row.
template <typename F> __device__ __forceinline__ void over_packs(u32 width, F f) {
    if (width <= 32 * PACK) return f(Number<1>());
    if (width <= 64 * PACK) return f(Number<2>());
    if (width <= 128 * PACK) return f(Number<4>());
    f(Number<WARP_ROW / 32 / PACK>());
}
