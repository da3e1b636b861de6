// What every attention kernel is told, and where a block finds its vectors: qkv [B, T, 3, H, D] is read in place.
#pragma once

#include "common/element.cuh"

#define INFINITE __int_as_float(0x7f800000)
#define NOT_A_NUMBER __int_as_float(0x7fffffff)

#define PASTE_HEAD(name, head) ENTRY(name##_d##head)
#define WITH_HEAD(name, head) PASTE_HEAD(name, head)
// HEAD_ENTRY(attention_fwd) is attention_fwd_d64_f32.
#define HEAD_ENTRY(name) WITH_HEAD(name, HEAD)

// What a launch is told; attention/cuda.rs has the same struct.
struct Problem {
    u32 tokens;  // T
    u32 heads;   // H
    u32 size;    // D, at most HEAD
    u32 tiles;   // of own rows in T: see the kernel
    u32 aligned; // whether every row of every tensor starts at a multiple of 16 bytes
    float scale; // of the scores
};
static_assert(sizeof(Problem) == 24, "as in cuda.rs");

// A sample and head, and the own row that a block starts with.
struct Place {
    u32 sample, head, first;
    u64 pair; // sample * heads + head
};

__device__ __forceinline__ Place place_of(u32 pair, const Problem &p) {
    return {pair / p.heads, pair % p.heads, 0, pair};
}
// `pairs` further on.
__device__ __forceinline__ Place further(Place at, u32 pairs, const Problem &p) {
    at.pair += pairs;
    for (at.head += pairs; at.head >= p.heads; at.head -= p.heads) at.sample++;
    return at;
}
// Of block ((sample * heads) + head) * tiles + tile, whose tile has `rows` own rows.
__device__ __forceinline__ Place place(u32 rows, const Problem &p, u32 block = blockIdx.x) {
    const u32 pair = block / p.tiles;
    Place at = place_of(pair, p);
    at.first = (block - pair * p.tiles) * rows;
    return at;
}

// How many keys of a sample are seen. A number outside 0 .. T counts as 0, and makes the sample's results NaN.
struct Keys {
    u32 count;
    bool wrong;
};

__device__ __forceinline__ Keys keys_of(const i32 *valid, u32 sample, const Problem &p) {
    if (!valid) return {p.tokens, false};
    u32 count = u32(valid[sample]);
    return {count > p.tokens ? 0 : count, count > p.tokens};
}

// Token 0 of query, key or value (part 0, 1, 2) in qkv [B, T, 3, H, D]; token t lies t * token_stride further.
template <typename T> __device__ __forceinline__ T *part_of(T *qkv, int part, Place at, const Problem &p) {
    return qkv + ((u64(at.sample) * p.tokens * 3 + part) * p.heads + at.head) * p.size;
}
__device__ __forceinline__ u64 token_stride(const Problem &p) { return u64(3) * p.heads * p.size; }
// The same in out and dout [B, T, H, D].
template <typename T> __device__ __forceinline__ T *rows_of(T *out, Place at, const Problem &p) {
    return out + (u64(at.sample) * p.tokens * p.heads + at.head) * p.size;
}
__device__ __forceinline__ u64 row_stride(const Problem &p) { return u64(p.heads) * p.size; }

// What is added to scaled scores: a matrix [T, T] of queries and keys for each sample and head, or for all of either,
// whose stride is 0 then. attention/cuda.rs has the same struct.
struct MaskStrides {
    u64 sample, head; // in elements
};

// The score of a query and a key, by their numbers: their product scaled, with an element of the place's mask where there is
// one. Rounded step by step, so that forward and backward get the same bits.
struct Score {
    const float *mask; // null where there is none
    float scale;
    u32 tokens;
    Score() = default;
    __device__ __forceinline__ Score(const float *masks, MaskStrides strides, Place at, const Problem &p)
        : mask(masks ? masks + at.sample * strides.sample + at.head * strides.head : nullptr), scale(p.scale),
          tokens(p.tokens) {}
    __device__ __forceinline__ float masked(float product, u32 query, u32 key) const {
        const bool exists = query < tokens && key < tokens;
        return __fadd_rn(__fmul_rn(product, scale), exists ? mask[u64(query) * tokens + key] : 0.0f);
    }
};

// A row without a key has lse minus infinity; with infinity instead, every weight of it is 0.
__device__ __forceinline__ float lse_or_infinity(float lse) { return lse == -INFINITE ? INFINITE : lse; }
