// Tiles of inner products and what both directions of NT-Xent share.
//
// A block of 128 threads owns 64 vectors and meets 128 others at a time. Thread (r, c) of 8 x 16 makes the 8 x 8
// products of own vectors r + 8 i with others c + 16 j: neighbouring threads then read neighbouring rows of shared
// memory, whose stride of 36 floats spreads them over all banks. Each product is one chain of fused multiply-adds from
// element 0 to D - 1, so that forward and both gradients see the same bits whichever side owns the tile.
#pragma once

#include "ntxent/problem.cuh"

constexpr int THREADS = 128;
constexpr int OWN = 64;     // vectors of a block
constexpr int OTHER = 128;  // vectors met at a time
constexpr int STEP = 32;    // elements of a vector staged at a time
constexpr int STRIDE = STEP + 4;
constexpr int STAGE = (OWN + OTHER) * STRIDE; // floats of shared memory that a tile of products needs

__device__ __forceinline__ int own_lane() { return threadIdx.x / 16; }
__device__ __forceinline__ int other_lane() { return threadIdx.x % 16; }

// Elements k .. k + WIDTH of COUNT vectors of x: [n, d] from `first` on into shared memory, STRIDE_ floats a vector;
// zeros where there are none.
template <int COUNT, int WIDTH, int STRIDE_>
__device__ __forceinline__ void stage(float *tile, const element *x, int first, int n, int k, int d, bool aligned) {
    if (aligned) {
        constexpr int PACKS = WIDTH / PACK;
#pragma unroll
        for (int at = threadIdx.x; at < COUNT * PACKS; at += THREADS) {
            const int vector = at / PACKS, offset = at % PACKS * PACK;
            float v[PACK] = {};
            if (first + vector < n && k + offset < d) load_pack(x + u64(first + vector) * d + k + offset, v);
            // Without padding, eight threads that write the first halves of packs of 32 bytes would meet in half the
            // banks: every other four of them write the second halves first.
            const int flip = PACK == 8 && STRIDE_ % 32 == 0 && (at / 4) % 2 == 1 ? 4 : 0;
#pragma unroll
            for (int i = 0; i < PACK; i += 4) {
                const int other = (i ^ 4) % PACK;
                const float4 four = flip ? make_float4(v[other], v[other + 1], v[other + 2], v[other + 3])
                                         : make_float4(v[i], v[i + 1], v[i + 2], v[i + 3]);
                *reinterpret_cast<float4 *>(tile + vector * STRIDE_ + offset + (i ^ flip)) = four;
            }
        }
        return;
    }
    for (int at = threadIdx.x; at < COUNT * WIDTH; at += THREADS) {
        const int vector = at / WIDTH, offset = at % WIDTH;
        const bool inside = first + vector < n && k + offset < d;
        tile[vector * STRIDE_ + offset] = inside ? to_float(x[u64(first + vector) * d + k + offset]) : 0.0f;
    }
}

// s[i][j] = own vector first + r + 8 i times other vector start + c + 16 j. `shared` has STAGE floats; whoever used
// them before is waited for here, and they may be written again only behind another barrier.
__device__ __forceinline__ void products(float (&s)[8][8], float *shared, const element *own, int first, int own_count,
                                         const element *other, int start, int other_count, int d, bool aligned) {
    float *own_tile = shared, *other_tile = shared + OWN * STRIDE;
#pragma unroll
    for (int i = 0; i < 8; i++)
#pragma unroll
        for (int j = 0; j < 8; j++) s[i][j] = 0.0f;
    for (int k = 0; k < d; k += STEP) {
        __syncthreads(); // whoever still reads the elements before these is done
        stage<OWN, STEP, STRIDE>(own_tile, own, first, own_count, k, d, aligned);
        stage<OTHER, STEP, STRIDE>(other_tile, other, start, other_count, k, d, aligned);
        __syncthreads(); // both tiles are written
        const int steps = d - k < STEP ? d - k : STEP;
        for (int at = 0; at < steps; at += 4) {
            float4 a[8];
#pragma unroll
            for (int i = 0; i < 8; i++)
                a[i] = *reinterpret_cast<const float4 *>(own_tile + (own_lane() + 8 * i) * STRIDE + at);
#pragma unroll
            for (int j = 0; j < 8; j++) {
                const float4 b = *reinterpret_cast<const float4 *>(other_tile + (other_lane() + 16 * j) * STRIDE + at);
#pragma unroll
                for (int i = 0; i < 8; i++) {
                    s[i][j] = fmaf(a[i].x, b.x, s[i][j]);
                    s[i][j] = fmaf(a[i].y, b.y, s[i][j]);
                    s[i][j] = fmaf(a[i].z, b.z, s[i][j]);
                    s[i][j] = fmaf(a[i].w, b.w, s[i][j]);
                }
            }
        }
    }
}
