// matmul_mma.cu: C = A B + bias with bf16 operands, float32 sums and a bf16 result, on the tensor cores by
// mma.sync. Two entries: B as [K, N] (matmul_nn) or as [N, K] (matmul_nt). Rows may be longer than the
// matrix (a pitch, in elements, a multiple of eight); M, N and K are arbitrary. The sums never leave
// registers before they are bf16.
//
// Four warps make a tile of 64 x 64; warp (i, j) its quarter of 32 x 32. Operands come in slices of 32
// along K through three stages of shared memory, filled by 16-byte cp.async that fills with zeros what
// lies outside the matrix, and are read by ldmatrix. Chunks of 16 bytes are permuted within a row (XOR
// with bits of the row), so that neither the writes nor the eight rows of an ldmatrix meet in a bank. The
// epilogue turns each warp's quarter in a corner of the same shared memory that only that warp uses, and
// stores 16 bytes a lane.

typedef unsigned short u16;  // bf16 bits
typedef unsigned int u32;

#define TILE 64
#define SLICE 32
#define STAGES 3
#define WARP_TILE 32
#define THREADS 128

__device__ __forceinline__ u32 shared_address(const void* pointer) { return (u32)__cvta_generic_to_shared(pointer); }

// Copies `bytes` (at most 16) from global memory and zeros up to 16.
__device__ __forceinline__ void copy_async(u16* to, const u16* from, int bytes) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(to)), "l"(from), "r"(bytes)
                 : "memory");
}

__device__ __forceinline__ void commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }

template <int PENDING>
__device__ __forceinline__ void wait() {
    asm volatile("cp.async.wait_group %0;" ::"n"(PENDING) : "memory");
}

__device__ __forceinline__ void load_matrices(u32 (&r)[4], const u16* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(shared_address(row)) : "memory");
}

__device__ __forceinline__ void load_matrices_transposed(u32 (&r)[4], const u16* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(shared_address(row)) : "memory");
}

__device__ __forceinline__ void store_matrices(u16* row, u32 a, u32 b, u32 c, u32 d) {
    asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(shared_address(row)),
                 "r"(a), "r"(b), "r"(c), "r"(d) : "memory");
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

// Where chunk `chunk` of row `row` lies in a tile of COLUMNS (32 or 64) bf16 a row: a permutation of the row's chunks.
template <int COLUMNS>
__device__ __forceinline__ int place(int row, int chunk) {
    const int flip = COLUMNS == 64 ? row & 7 : row >> 1 & 3;
    return row * COLUMNS + (chunk ^ flip) * 8;
}

// Starts the copy of ROWS x COLUMNS elements at (first_row, first_column) of a matrix of rows x columns.
template <int ROWS, int COLUMNS>
__device__ __forceinline__ void load_tile(u16* tile, const u16* matrix, int pitch, int first_row, int first_column,
                                          int rows, int columns) {
    constexpr int CHUNKS = COLUMNS / 8;
#pragma unroll
    for (int turn = 0; turn < ROWS * CHUNKS / THREADS; turn++) {
        const int i = turn * THREADS + threadIdx.x;
        const int row = first_row + i / CHUNKS;
        const int column = first_column + i % CHUNKS * 8;
        const int valid = row < rows ? min(max(columns - column, 0), 8) : 0;
        const u16* from = matrix + (valid > 0 ? (long long)row * pitch + column : 0);
        copy_async(tile + place<COLUMNS>(i / CHUNKS, i % CHUNKS), from, valid * 2);
    }
}

struct Stage {
    u16 a[TILE * SLICE];  // [64, 32]
    u16 b[TILE * SLICE];  // [32, 64] (nn) or [64, 32] (nt)
};

template <bool TRANSPOSED>
__device__ __forceinline__ void load_stage(Stage& stage, const u16* a, const u16* b, int pitch_a, int pitch_b,
                                           int m, int n, int k, int slice) {
    load_tile<TILE, SLICE>(stage.a, a, pitch_a, blockIdx.y * TILE, slice * SLICE, m, k);
    if (TRANSPOSED) {
        load_tile<TILE, SLICE>(stage.b, b, pitch_b, blockIdx.x * TILE, slice * SLICE, n, k);
    } else {
        load_tile<SLICE, TILE>(stage.b, b, pitch_b, slice * SLICE, blockIdx.x * TILE, k, n);
    }
}

// Adds one slice's products to the warp's 32 x 32 sums.
template <bool TRANSPOSED>
__device__ __forceinline__ void multiply(float (&sum)[2][4][4], const Stage& stage, int warp_row, int warp_column) {
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int step = 0; step < SLICE / 16; step++) {
        u32 a[2][4], b[2][4];
#pragma unroll
        for (int i = 0; i < 2; i++) {
            const int row = warp_row + 16 * i + lane % 16;
            load_matrices(a[i], stage.a + place<SLICE>(row, 2 * step + lane / 16));
        }
#pragma unroll
        for (int j = 0; j < 2; j++) {
            if (TRANSPOSED) {
                const int row = warp_column + 16 * j + lane % 8 + lane / 16 * 8;
                load_matrices(b[j], stage.b + place<SLICE>(row, 2 * step + lane / 8 % 2));
            } else {
                const int row = 16 * step + lane % 16;
                load_matrices_transposed(b[j], stage.b + place<TILE>(row, warp_column / 8 + 2 * j + lane / 16));
            }
        }
#pragma unroll
        for (int i = 0; i < 2; i++) {
#pragma unroll
            for (int j = 0; j < 4; j++) {
                mma(sum[i][j], a[i], b[j / 2][j % 2 * 2], b[j / 2][j % 2 * 2 + 1]);
            }
        }
    }
}

// Rounds the warp's sums, turns them in `corner` (32 x 32, this warp's alone) and stores rows of 16-byte chunks.
__device__ __forceinline__ void store_sums(float (&sum)[2][4][4], u16* corner, const float* bias, u16* c, int pitch_c,
                                           int first_row, int first_column, int m, int n) {
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int j = 0; j < 4; j++) {
        const int column = first_column + 8 * j + lane % 4 * 2;
        const float bias0 = bias != nullptr && column < n ? bias[column] : 0.0f;
        const float bias1 = bias != nullptr && column + 1 < n ? bias[column + 1] : 0.0f;
#pragma unroll
        for (int i = 0; i < 2; i++) {
            sum[i][j][0] += bias0;
            sum[i][j][1] += bias1;
            sum[i][j][2] += bias0;
            sum[i][j][3] += bias1;
        }
    }
#pragma unroll
    for (int i = 0; i < 2; i++) {
#pragma unroll
        for (int j = 0; j < 4; j += 2) {
            u16* row = corner + place<WARP_TILE>(16 * i + lane % 16, j + lane / 16);
            store_matrices(row, pack(sum[i][j][0], sum[i][j][1]), pack(sum[i][j][2], sum[i][j][3]),
                           pack(sum[i][j + 1][0], sum[i][j + 1][1]), pack(sum[i][j + 1][2], sum[i][j + 1][3]));
        }
    }
    __syncwarp();  // Writing the corner by fragments | reading it by rows.
#pragma unroll
    for (int i = 0; i < 4; i++) {
        const int row = 8 * i + lane / 4;
        const int column = first_column + lane % 4 * 8;
        const uint4 chunk = *(const uint4*)(corner + place<WARP_TILE>(row, lane % 4));
        u16* to = c + (long long)(first_row + row) * pitch_c + column;
        if (first_row + row < m) {
            if (column + 8 <= n) {
                *(uint4*)to = chunk;
            } else {
                const u32 word[4] = {chunk.x, chunk.y, chunk.z, chunk.w};
#pragma unroll
                for (int e = 0; e < 8; e++) {
                    if (column + e < n) {
                        to[e] = (u16)(word[e / 2] >> e % 2 * 16);
                    }
                }
            }
        }
    }
}

template <bool TRANSPOSED>
__device__ __forceinline__ void matmul(const u16* a, const u16* b, const float* bias, u16* c, int pitch_a, int pitch_b,
                                       int pitch_c, int m, int n, int k) {
    __shared__ __align__(128) Stage stages[STAGES];
    const int warp = threadIdx.x / 32;
    const int warp_row = warp / 2 * WARP_TILE;
    const int warp_column = warp % 2 * WARP_TILE;
    const int slices = (k + SLICE - 1) / SLICE;

    float sum[2][4][4] = {};
    for (int slice = 0; slice < STAGES - 1; slice++) {
        if (slice < slices) {
            load_stage<TRANSPOSED>(stages[slice], a, b, pitch_a, pitch_b, m, n, k, slice);
        }
        commit();  // A group a slice, empty or not: the count below relies on it.
    }
    for (int slice = 0; slice < slices; slice++) {
        wait<STAGES - 2>();
        // Everyone's part of this slice has arrived | reading it; and reading the slice before | overwriting its stage.
        __syncthreads();
        const int next = slice + STAGES - 1;
        if (next < slices) {
            load_stage<TRANSPOSED>(stages[next % STAGES], a, b, pitch_a, pitch_b, m, n, k, next);
        }
        commit();
        multiply<TRANSPOSED>(sum, stages[slice % STAGES], warp_row, warp_column);
    }
    __syncthreads();  // Reading the last slices | overwriting them with the result.
    store_sums(sum, (u16*)stages + warp * WARP_TILE * WARP_TILE, bias, c, pitch_c, blockIdx.y * TILE + warp_row,
               blockIdx.x * TILE + warp_column, m, n);
}

extern "C" __global__ void __launch_bounds__(THREADS) matmul_nn(
    const u16* __restrict__ a,       // [m, pitch_a], k of each row used
    const u16* __restrict__ b,       // [k, pitch_b], n of each row used
    const float* __restrict__ bias,  // [n] or null
    u16* __restrict__ c,             // [m, pitch_c], n of each row written
    int pitch_a, int pitch_b, int pitch_c, int m, int n, int k) {
    matmul<false>(a, b, bias, c, pitch_a, pitch_b, pitch_c, m, n, k);
}

extern "C" __global__ void __launch_bounds__(THREADS) matmul_nt(
    const u16* __restrict__ a,       // [m, pitch_a], k of each row used
    const u16* __restrict__ b,       // [n, pitch_b], k of each row used
    const float* __restrict__ bias,  // [n] or null
    u16* __restrict__ c,             // [m, pitch_c], n of each row written
    int pitch_a, int pitch_b, int pitch_c, int m, int n, int k) {
    matmul<true>(a, b, bias, c, pitch_a, pitch_b, pitch_c, m, n, k);
}
