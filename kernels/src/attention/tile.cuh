// Tiles of vectors and of weights in shared memory: what the attention kernels are made of.
//
// The block works on TILE own rows (queries, or keys in attention_bwd_kv) and streams the other side through shared
// memory, TILE rows at a time. Its threads are a grid of TILE / 4 by 16: thread (y, x) has own rows 4 y .. 4 y + 3, of
// a tile of scores the columns x + 16 j, and of a result the components that `component` says. So a row's scores lie in
// the 16 lanes of a half-warp, a warp has 8 own rows, and no warp ever needs what another computed.
//
// Vectors are padded with zeros from their size D to HEAD, which is 32, 64 or 128. Rows in shared memory are 4 floats
// longer than their contents: 8 rows at the same component then lie in different banks.
#pragma once

#include "attention/problem.cuh"
#include "common/reduce.cuh"

constexpr int TILE = HEAD > 64 ? 32 : 64;     // rows of a tile: what fits in 96 KiB
constexpr int THREADS = 4 * TILE;             // of a block
constexpr int BLOCKS = 2;                     // of a multiprocessor that registers leave room for
constexpr int STRIDE = HEAD + 4;              // floats from row to row in a tile of vectors
constexpr int WEIGHT_STRIDE = TILE + 4;       // the same in a tile of weights
constexpr int GROUPS = TILE / 16;             // columns of scores that a thread has
constexpr int WIDTH = HEAD == 32 ? 2 : 4;     // components of a result that a thread has side by side
constexpr int CHUNKS = HEAD / (16 * WIDTH);   // how many times that
constexpr int TILE_FLOATS = TILE * STRIDE;

// The thread's place in its block.
__device__ __forceinline__ int own_row() { return threadIdx.x / 16 * 4; }
__device__ __forceinline__ int own_column() { return threadIdx.x % 16; }
// Component WIDTH * c + w of the thread's result, of a vector.
__device__ __forceinline__ int component(int c, int w) { return c * 16 * WIDTH + own_column() * WIDTH + w; }

// 2 floats, or a pack, to shared memory and back. A pack of bf16 is two float4: where a row is 8 packs or more, every
// second group of 4 lanes takes its second half first, so that 8 lanes always touch different banks. (Offsets and
// selections, since the compiler would make two branches of two whole cases.)
__device__ __forceinline__ int first_half() { return HEAD > 32 ? threadIdx.x & 4 : 0; }
__device__ __forceinline__ void put(float *at, const float (&v)[2]) {
    *reinterpret_cast<float2 *>(at) = make_float2(v[0], v[1]);
}
__device__ __forceinline__ void put(float *at, const float (&v)[4]) {
    // Written out, since the compiler takes some of these stores apart.
    asm volatile("st.shared.v4.f32 [%0], {%1, %2, %3, %4};"
                 :
                 : "r"(u32(__cvta_generic_to_shared(at))), "f"(v[0]), "f"(v[1]), "f"(v[2]), "f"(v[3])
                 : "memory");
}
__device__ __forceinline__ void put(float *at, const float (&v)[8]) {
    const int first = first_half();
    float a[4], b[4];
#pragma unroll
    for (int i = 0; i < 4; i++) a[i] = first ? v[4 + i] : v[i], b[i] = first ? v[i] : v[4 + i];
    put(at + first, a);
    put(at + (first ^ 4), b);
}
__device__ __forceinline__ void get(const float *at, float (&v)[2]) {
    const float2 both = *reinterpret_cast<const float2 *>(at);
    v[0] = both.x, v[1] = both.y;
}
__device__ __forceinline__ void get(const float *at, float (&v)[4]) {
    const float4 all = *reinterpret_cast<const float4 *>(at);
    v[0] = all.x, v[1] = all.y, v[2] = all.z, v[3] = all.w;
}
__device__ __forceinline__ void get(const float *at, float (&v)[8]) {
    const int first = first_half();
    float a[4], b[4];
    get(at + first, a);
    get(at + (first ^ 4), b);
#pragma unroll
    for (int i = 0; i < 4; i++) v[i] = first ? b[i] : a[i], v[4 + i] = first ? a[i] : b[i];
}

// tile[r][c] = rows[first + r][c], zero where that row is `end` or beyond and in the padding. By the whole block.
__device__ __forceinline__ void load_tile(float *tile, const element *rows, u64 stride, u32 first, u32 end,
                                          const Problem &p) {
    constexpr int PACKS = HEAD / PACK; // of a row
#pragma unroll
    for (int i = threadIdx.x; i < TILE * PACKS; i += THREADS) {
        const int row = i / PACKS, column = i % PACKS * PACK;
        float v[PACK] = {};
        if (first + row < end) {
            const element *from = rows + (first + row) * stride + column;
            if (p.aligned) {
                if (column < p.size) load_pack(from, v);
            } else {
#pragma unroll
                for (int e = 0; e < PACK; e++)
                    if (column + e < p.size) v[e] = to_float(from[e]);
            }
        }
        put(tile + row * STRIDE + column, v);
    }
}

// rows[first + r][c] = tile[r][c] for the warp's 8 rows r, as far as they are before `end`. By each warp for itself.
__device__ __forceinline__ void store_rows(const float *tile, element *rows, u64 stride, u32 first, u32 end,
                                           const Problem &p) {
    constexpr int PACKS = HEAD / PACK;
#pragma unroll
    for (int i = lane_id(); i < 8 * PACKS; i += 32) {
        const int row = warp_id() * 8 + i / PACKS, column = i % PACKS * PACK;
        if (first + row >= end || column >= p.size) continue;
        float v[PACK];
        get(tile + row * STRIDE + column, v);
        element *to = rows + (first + row) * stride + column;
        if (p.aligned) {
            store_pack(to, v);
        } else {
#pragma unroll
            for (int e = 0; e < PACK; e++)
                if (column + e < p.size) from_float(v[e], to[e]);
        }
    }
}

// Sum and maximum over the 16 lanes that share rows, in each of them.
__device__ __forceinline__ float row_sum(float x) {
#pragma unroll
    for (int step = 8; step > 0; step /= 2) x += __shfl_xor_sync(ALL_LANES, x, step);
    return x;
}
__device__ __forceinline__ float row_max(float x) {
#pragma unroll
    for (int step = 8; step > 0; step /= 2) x = fmaxf(x, __shfl_xor_sync(ALL_LANES, x, step));
    return x;
}

// out[first + r] = x of own row r, as far as they are before `end`; each of x is the same in the 16 lanes of a row.
__device__ __forceinline__ void store_scalars(const float (&x)[4], float *out, u32 first, u32 end) {
    const int i = own_column();
    const float mine = i == 0 ? x[0] : (i == 1 ? x[1] : (i == 2 ? x[2] : x[3]));
    const u32 row = first + own_row() + i;
    if (i < 4 && row < end) out[row] = mine;
}

// s[i][j] = own[4 y + i] . other[x + 16 j] over HEAD components, for the columns before `columns`; others are 0.
// Products are added in the order of the components with one rounding each, so that query . key has the same bits
// whichever of them is the own side.
__device__ __forceinline__ void inner_products(const float *own, const float *other, u32 columns,
                                               float (&s)[4][GROUPS]) {
#pragma unroll
    for (int i = 0; i < 4; i++)
#pragma unroll
        for (int j = 0; j < GROUPS; j++) s[i][j] = 0.0f;
    own += own_row() * STRIDE;
    other += own_column() * STRIDE;
#pragma unroll 4
    for (int d = 0; d < HEAD; d += 4) {
        float a[4][4];
#pragma unroll
        for (int i = 0; i < 4; i++) get(own + i * STRIDE + d, a[i]);
#pragma unroll
        for (int j = 0; j < GROUPS; j++) {
            if (16 * j >= columns) continue;
            float b[4];
            get(other + 16 * j * STRIDE + d, b);
#pragma unroll
            for (int i = 0; i < 4; i++)
#pragma unroll
                for (int e = 0; e < 4; e++) s[i][j] = fmaf(a[i][e], b[e], s[i][j]);
        }
    }
}

// Products to scores, and the scale that is left for them: where there is a mask, scale and mask are in the scores already.
// Own row 4 y + i is token own_first + 4 y + i, column x + 16 j is token other_first + x + 16 j; own rows are queries, or keys.
template <bool OWN_KEYS>
__device__ __forceinline__ float add_mask(const Score &score, u32 own_first, u32 other_first, float (&s)[4][GROUPS]) {
    if (!score.mask) return score.scale;
#pragma unroll
    for (int i = 0; i < 4; i++)
#pragma unroll
        for (int j = 0; j < GROUPS; j++) {
            const u32 own = own_first + own_row() + i, other = other_first + own_column() + 16 * j;
            s[i][j] = OWN_KEYS ? score.masked(s[i][j], other, own) : score.masked(s[i][j], own, other);
        }
    return 1.0f;
}

// weights[4 y + i][x + 16 j] = w[i][j], so that the other lanes of the row can read it.
__device__ __forceinline__ void share_weights(float *weights, u32 columns, const float (&w)[4][GROUPS]) {
    weights += own_row() * WEIGHT_STRIDE + own_column();
    __syncwarp(); // the warp's lanes have read the weights before these
#pragma unroll
    for (int i = 0; i < 4; i++)
#pragma unroll
        for (int j = 0; j < GROUPS; j++)
            if (16 * j < columns) weights[i * WEIGHT_STRIDE + 16 * j] = w[i][j];
    __syncwarp(); // the rows of the warp's 8 vectors are written
}

// sum[i][..] += sum over columns k of weights[4 y + i][k] * other[k][component ..]
__device__ __forceinline__ void weighted_sum(const float *weights, const float *other, u32 columns,
                                             float (&sum)[4][CHUNKS][WIDTH]) {
    weights += own_row() * WEIGHT_STRIDE;
    for (int k = 0; k < columns; k += 4) {
        float w[4][4];
#pragma unroll
        for (int i = 0; i < 4; i++) get(weights + i * WEIGHT_STRIDE + k, w[i]);
#pragma unroll
        for (int e = 0; e < 4; e++)
#pragma unroll
            for (int c = 0; c < CHUNKS; c++) {
                float v[WIDTH];
                get(other + (k + e) * STRIDE + component(c, 0), v);
#pragma unroll
                for (int i = 0; i < 4; i++)
#pragma unroll
                    for (int n = 0; n < WIDTH; n++) sum[i][c][n] = fmaf(w[i][e], v[n], sum[i][c][n]);
            }
    }
}

// tile[4 y + i][component ..] = x[i][..], over what only this warp has read.
__device__ __forceinline__ void stage(float *tile, const float (&x)[4][CHUNKS][WIDTH]) {
    __syncwarp(); // the warp's lanes have read their rows
#pragma unroll
    for (int i = 0; i < 4; i++)
#pragma unroll
        for (int c = 0; c < CHUNKS; c++) put(tile + (own_row() + i) * STRIDE + component(c, 0), x[i][c]);
    __syncwarp(); // the warp's 8 rows are written
}

// exp(score * scale - lse), where lse of a row that sees nothing is given as infinity. The product is rounded as it was
// when lse was made: where one key dominates, both are equal and its weight is exactly 1, however large they are.
__device__ __forceinline__ float weight_of(float score, float scale, float lse) {
    return expf(__fadd_rn(__fmul_rn(score, scale), -lse));
}
