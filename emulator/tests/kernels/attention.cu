// attention.cu: output = softmax(query key^T * scale) value for heads of 64 features, bf16, and the rows'
// log-sum-exp for the backward pass. The score matrix is never stored (Dao, FlashAttention-2, arXiv
// 2307.08691).
//
// A block takes 64 queries of one head; each of its four warps 16 of them, held in registers as tensor
// core fragments. Keys and values stream through two stages of 64 rows: while one is computed with,
// cp.async fills the other, with zeros past the last token. A warp keeps the running maximum and sum of
// its rows (four lanes share a row) and rescales what it has summed when the maximum grows. Chunks of 16
// bytes are permuted within a row by XOR with the row's low bits, so that ldmatrix has no bank conflict.
// The result turns in the block's query tile, where a warp uses only its own rows.

typedef unsigned short u16;  // bf16 bits
typedef unsigned int u32;

#define TILE 64
#define FEATURES 64
#define THREADS 128
#define FULL 0xffffffffu

__device__ __forceinline__ u32 shared_address(const void* pointer) { return (u32)__cvta_generic_to_shared(pointer); }

__device__ __forceinline__ void load_matrices(u32 (&r)[4], const u16* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(shared_address(row)) : "memory");
}

__device__ __forceinline__ void load_matrices_transposed(u32 (&r)[4], const u16* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(shared_address(row)) : "memory");
}

__device__ __forceinline__ void mma(float (&c)[4], const u32 (&a)[4], u32 b0, u32 b1) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

__device__ __forceinline__ u32 pack(float low, float high) {
    u32 pair;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
    return pair;
}

__device__ __forceinline__ u16* place(u16* tile, int row, int chunk) {
    return tile + row * FEATURES + (chunk ^ (row & 7)) * 8;
}

// Starts the copy of rows first .. first + 63 of [tokens, 64]; rows past the last token become zeros.
__device__ __forceinline__ void load_tile(u16* tile, const u16* rows, int first, int tokens) {
#pragma unroll
    for (int turn = 0; turn < TILE * 8 / THREADS; turn++) {
        const int i = turn * THREADS + threadIdx.x;
        const int row = first + i / 8;
        const u16* from = rows + (row < tokens ? (long long)row * FEATURES + i % 8 * 8 : 0);
        const int bytes = row < tokens ? 16 : 0;
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::
                     "r"(shared_address(place(tile, i / 8, i % 8))), "l"(from), "r"(bytes) : "memory");
    }
}

__device__ __forceinline__ void commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }

template <int PENDING>
__device__ __forceinline__ void wait() {
    asm volatile("cp.async.wait_group %0;" ::"n"(PENDING) : "memory");
}

// Reduces over the four lanes that share a row of a fragment.
__device__ __forceinline__ float row_maximum(float x) {
    x = fmaxf(x, __shfl_xor_sync(FULL, x, 1));
    return fmaxf(x, __shfl_xor_sync(FULL, x, 2));
}

__device__ __forceinline__ float row_sum(float x) {
    x += __shfl_xor_sync(FULL, x, 1);
    return x + __shfl_xor_sync(FULL, x, 2);
}

// One tile of keys and values: scores, running softmax, weighted sum. `valid` of the tile's 64 keys exist.
__device__ __forceinline__ void attend(float (&sum)[8][4], float (&maximum)[2], float (&total)[2],
                                       const u32 (&query)[4][4], u16* key_tile, u16* value_tile, int valid,
                                       float scale_log2) {
    const int lane = threadIdx.x % 32;
    float score[8][4] = {};
#pragma unroll
    for (int step = 0; step < 4; step++) {
#pragma unroll
        for (int pair = 0; pair < 4; pair++) {
            u32 key[4];
            load_matrices(key, place(key_tile, 16 * pair + lane % 8 + lane / 16 * 8, 2 * step + lane / 8 % 2));
            mma(score[2 * pair], query[step], key[0], key[1]);
            mma(score[2 * pair + 1], query[step], key[2], key[3]);
        }
    }
#pragma unroll
    for (int j = 0; j < 8; j++) {
#pragma unroll
        for (int e = 0; e < 4; e++) {
            const int key = 8 * j + lane % 4 * 2 + e % 2;
            score[j][e] = key < valid ? score[j][e] * scale_log2 : __int_as_float(0xff800000);
        }
    }
#pragma unroll
    for (int half = 0; half < 2; half++) {  // Rows lane / 4 and lane / 4 + 8 of the warp's 16.
        float fresh = maximum[half];
#pragma unroll
        for (int j = 0; j < 8; j++) {
            fresh = fmaxf(fresh, fmaxf(score[j][2 * half], score[j][2 * half + 1]));
        }
        fresh = row_maximum(fresh);  // Finite: a tile has at least one key.
        const float rescale = exp2f(maximum[half] - fresh);
        maximum[half] = fresh;
        total[half] *= rescale;
#pragma unroll
        for (int j = 0; j < 8; j++) {
            sum[j][2 * half] *= rescale;
            sum[j][2 * half + 1] *= rescale;
            score[j][2 * half] = exp2f(score[j][2 * half] - fresh);
            score[j][2 * half + 1] = exp2f(score[j][2 * half + 1] - fresh);
            total[half] += score[j][2 * half] + score[j][2 * half + 1];
        }
    }
#pragma unroll
    for (int step = 0; step < 4; step++) {  // The scores' layout as a result is the weights' as an operand.
        const u32 weight[4] = {
            pack(score[2 * step][0], score[2 * step][1]), pack(score[2 * step][2], score[2 * step][3]),
            pack(score[2 * step + 1][0], score[2 * step + 1][1]), pack(score[2 * step + 1][2], score[2 * step + 1][3])};
#pragma unroll
        for (int pair = 0; pair < 4; pair++) {
            u32 value[4];
            load_matrices_transposed(value, place(value_tile, 16 * step + lane % 16, 2 * pair + lane / 16));
            mma(sum[2 * pair], weight, value[0], value[1]);
            mma(sum[2 * pair + 1], weight, value[2], value[3]);
        }
    }
}

extern "C" __global__ void __launch_bounds__(THREADS) attention_fwd(
    const u16* __restrict__ query,  // [heads, tokens, 64]
    const u16* __restrict__ key,    // [heads, tokens, 64]
    const u16* __restrict__ value,  // [heads, tokens, 64]
    u16* __restrict__ output,       // [heads, tokens, 64]
    float* __restrict__ lse,        // [heads, tokens], natural logarithm
    int tokens, float scale_log2) {
    __shared__ __align__(128) u16 query_tile[TILE * FEATURES];
    __shared__ __align__(128) u16 key_tile[2][TILE * FEATURES];
    __shared__ __align__(128) u16 value_tile[2][TILE * FEATURES];
    const int lane = threadIdx.x % 32;
    const int warp_row = threadIdx.x / 32 * 16;
    const int first = blockIdx.x * TILE;
    const long long head = (long long)blockIdx.y * tokens * FEATURES;
    const int tiles = (tokens + TILE - 1) / TILE;

    load_tile(query_tile, query + head, first, tokens);
    load_tile(key_tile[0], key + head, 0, tokens);
    load_tile(value_tile[0], value + head, 0, tokens);
    commit();

    u32 fragment[4][4];
    float sum[8][4] = {};
    float maximum[2] = {__int_as_float(0xff800000), __int_as_float(0xff800000)};
    float total[2] = {0.0f, 0.0f};
    for (int tile = 0; tile < tiles; tile++) {
        const int stage = tile % 2;
        if (tile + 1 < tiles) {
            load_tile(key_tile[1 - stage], key + head, (tile + 1) * TILE, tokens);
            load_tile(value_tile[1 - stage], value + head, (tile + 1) * TILE, tokens);
        }
        commit();
        wait<1>();
        __syncthreads();  // Everyone's part of this stage has arrived | reading it.
        if (tile == 0) {
#pragma unroll
            for (int step = 0; step < 4; step++) {
                load_matrices(fragment[step], place(query_tile, warp_row + lane % 16, 2 * step + lane / 16));
            }
        }
        attend(sum, maximum, total, fragment, key_tile[stage], value_tile[stage], tokens - tile * TILE, scale_log2);
        __syncthreads();  // Reading this stage | overwriting it with the tile after next.
    }

#pragma unroll
    for (int half = 0; half < 2; half++) {
        const float all = row_sum(total[half]);
        const float inverse = 1.0f / all;
        const int row = warp_row + lane / 4 + 8 * half;
#pragma unroll
        for (int j = 0; j < 8; j++) {
            const u32 pair = pack(sum[j][2 * half] * inverse, sum[j][2 * half + 1] * inverse);
            *(u32*)(place(query_tile, row, j) + lane % 4 * 2) = pair;
        }
        if (lane % 4 == 0 && first + row < tokens) {
            lse[(long long)blockIdx.y * tokens + first + row] = (maximum[half] + log2f(all)) * 0.69314718f;
        }
    }
    __syncwarp();  // Writing this warp's rows by fragments | reading them by rows.
#pragma unroll
    for (int i = 0; i < 4; i++) {
        const int row = warp_row + 4 * i + lane / 8;
        if (first + row < tokens) {
            const uint4 chunk = *(const uint4*)place(query_tile, row, lane % 8);
            *(uint4*)(output + head + (long long)(first + row) * FEATURES + lane % 8 * 8) = chunk;
        }
    }
}
