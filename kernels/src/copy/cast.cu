// Each element in another type.
//
// A thread takes four groups of four elements, a block's width apart: 16 bytes of a 4-byte type, 8 of bf16, 4 of u8 at
// a time, so that neighbouring threads use whole sectors of both types. Where addresses do not allow it, it goes
// element by element. Floats go through float32, integers through i32, which hold every value of both.

#include "common/element.cuh"

constexpr int COUNT = 4;  // elements of a group
constexpr int GROUPS = 4; // of a thread

// A group, as floats or as integers.
__device__ __forceinline__ void load(const float *at, float (&v)[COUNT]) { load_pack(at, v); }
__device__ __forceinline__ void load(const bf16 *at, float (&v)[COUNT]) {
    const uint2 words = *reinterpret_cast<const uint2 *>(at);
    v[0] = __uint_as_float(words.x << 16), v[1] = __uint_as_float(words.x & 0xffff0000u);
    v[2] = __uint_as_float(words.y << 16), v[3] = __uint_as_float(words.y & 0xffff0000u);
}
__device__ __forceinline__ void load(const i32 *at, i32 (&v)[COUNT]) {
    const int4 words = *reinterpret_cast<const int4 *>(at);
    v[0] = words.x, v[1] = words.y, v[2] = words.z, v[3] = words.w;
}
__device__ __forceinline__ void load(const u8 *at, i32 (&v)[COUNT]) {
    const u32 word = *reinterpret_cast<const u32 *>(at);
#pragma unroll
    for (int i = 0; i < COUNT; i++) v[i] = word >> 8 * i & 255;
}

__device__ __forceinline__ float value(float x) { return x; }
__device__ __forceinline__ float value(bf16 x) { return to_float(x); }
__device__ __forceinline__ i32 value(i32 x) { return x; }
__device__ __forceinline__ i32 value(u8 x) { return x; }

// To f32: to nearest, ties to even.
__device__ __forceinline__ void convert(float x, float &out) { out = x; }
__device__ __forceinline__ void convert(i32 x, float &out) { out = __int2float_rn(x); }

// To what rounds to the right bf16: an integer is cut to float32 and, where digits were lost, made odd, so that the
// second rounding knows.
__device__ __forceinline__ float before_bf16(float x) { return x; }
__device__ __forceinline__ float before_bf16(i32 x) {
    const float cut = __int2float_rz(x);
    return __float2int_rz(cut) == x ? cut : __uint_as_float(__float_as_uint(cut) | 1);
}
template <typename Wide> __device__ __forceinline__ void convert(Wide x, bf16 &out) { from_float(before_bf16(x), out); }

// To integers: the fraction is dropped, what is outside goes to the nearest, NaN to 0.
__device__ __forceinline__ void convert(float x, i32 &out) { out = __float2int_rz(x); }
__device__ __forceinline__ void convert(i32 x, i32 &out) { out = x; }
template <typename Wide> __device__ __forceinline__ void convert(Wide x, u8 &out) {
    i32 whole;
    convert(x, whole);
    out = whole < 0 ? 0 : (whole > 255 ? 255 : whole);
}

template <typename Wide> __device__ __forceinline__ void store(float *at, const Wide (&v)[COUNT]) {
    float w[COUNT];
#pragma unroll
    for (int i = 0; i < COUNT; i++) convert(v[i], w[i]);
    store_pack(at, w);
}
template <typename Wide> __device__ __forceinline__ void store(bf16 *at, const Wide (&v)[COUNT]) {
    float w[COUNT];
#pragma unroll
    for (int i = 0; i < COUNT; i++) w[i] = before_bf16(v[i]);
    *reinterpret_cast<uint2 *>(at) = make_uint2(pack_bf16(w[0], w[1]), pack_bf16(w[2], w[3]));
}
template <typename Wide> __device__ __forceinline__ void store(i32 *at, const Wide (&v)[COUNT]) {
    i32 w[COUNT];
#pragma unroll
    for (int i = 0; i < COUNT; i++) convert(v[i], w[i]);
    *reinterpret_cast<int4 *>(at) = make_int4(w[0], w[1], w[2], w[3]);
}
template <typename Wide> __device__ __forceinline__ void store(u8 *at, const Wide (&v)[COUNT]) {
    u32 word = 0;
#pragma unroll
    for (int i = 0; i < COUNT; i++) {
        u8 byte;
        convert(v[i], byte);
        word |= u32(byte) << 8 * i;
    }
    *reinterpret_cast<u32 *>(at) = word;
}

// out[i] = x[i]; x, out: [n]
template <typename Wide, typename In, typename Out>
__device__ __forceinline__ void cast(const In *x, Out *out, u64 n, u32 aligned) {
    const u64 first = (u64(blockIdx.x) * GROUPS * blockDim.x + threadIdx.x) * COUNT;
    Wide v[GROUPS][COUNT];
#pragma unroll
    for (int g = 0; g < GROUPS; g++) {
        const u64 start = first + u64(g) * blockDim.x * COUNT;
        if (aligned && start + COUNT <= n) load(x + start, v[g]);
    }
#pragma unroll
    for (int g = 0; g < GROUPS; g++) {
        const u64 start = first + u64(g) * blockDim.x * COUNT;
        if (aligned && start + COUNT <= n) {
            store(out + start, v[g]);
        } else {
            for (u64 i = start; i < n && i < start + COUNT; i++) convert(value(x[i]), out[i]);
        }
    }
}

#define CAST(from, to, Wide, In, Out)                                                                                  \
    KERNEL copy_cast_##from##_##to(const In *x, Out *out, u64 n, u32 aligned) { cast<Wide>(x, out, n, aligned); }

CAST(f32, bf16, float, float, bf16)
CAST(f32, i32, float, float, i32)
CAST(f32, u8, float, float, u8)
CAST(bf16, f32, float, bf16, float)
CAST(bf16, i32, float, bf16, i32)
CAST(bf16, u8, float, bf16, u8)
CAST(i32, f32, i32, i32, float)
CAST(i32, bf16, i32, i32, bf16)
CAST(i32, u8, i32, i32, u8)
CAST(u8, f32, i32, u8, float)
CAST(u8, bf16, i32, u8, bf16)
CAST(u8, i32, i32, u8, i32)
