// Gradients of NT-Xent. With G[i][j] = dloss_i (e^(s_ij - lse_i) - [j is i's positive]) / temperature
//
//     drows = G columns        dcolumns = G^T rows
//
// G [R, C] is never in memory. A block owns 64 rows (for dcolumns 64 columns) and 128 elements of their gradients,
// which it keeps in registers; it makes the inner products with 128 others at a time again, turns them into G in shared
// memory and multiplies that with the others. Each gradient is one block's alone: no atomics, no partial results, the
// same bits every time. Where D is more than 128, the blocks of one tile each make the inner products for themselves.
//
// A row whose positive is no column, or one that it must not see, gets the gradient NaN and adds nothing to dcolumns.

#include "common/element.cuh"
#include "common/reduce.cuh"
#include "ntxent/tile.cuh"

constexpr int WIDTH = 128;                // elements of a gradient that a block owns
constexpr int PART = 16;                  // others multiplied at a time
constexpr int WEIGHT_STRIDE = OTHER + 16; // two rows that a warp writes at once lie 16 banks apart
constexpr int NONE = -1, INVALID = -2;

static_assert(OWN * WEIGHT_STRIDE >= STAGE, "weights take the place of the staged vectors");

// What G needs of COUNT rows.
template <int COUNT> struct Facts {
    float lse[COUNT], coefficient[COUNT];
    int positive[COUNT]; // a column, NONE, or INVALID

    __device__ __forceinline__ void load(const Problem &p, int first, const i32 *positives, const float *dloss,
                                         const float *all_lse) {
        for (int i = threadIdx.x; i < COUNT && first + i < p.rows; i += THREADS) {
            const int row = first + i, column = positives ? positives[row] : NONE;
            lse[i] = all_lse[row];
            coefficient[i] = dloss[row] / p.temperature;
            positive[i] = !positives ? NONE : is_valid(p, row, column) ? column : INVALID;
        }
    }

    // G from the inner product s of `row`, whose facts are at i, with `column`.
    __device__ __forceinline__ float weight(const Problem &p, int i, int row, int column, float s) const {
        if (row >= p.rows || column >= p.columns || hidden(p, row, column) || positive[i] == INVALID) return 0.0f;
        const float softmax = __expf(over_temperature(p, s) - lse[i]);
        return coefficient[i] * (column == positive[i] ? softmax - 1.0f : softmax);
    }
};

// Four elements from k on of a vector of d, zeros behind its end.
__device__ __forceinline__ void load_four(const element *vector, int k, int d, float (&v)[4]) {
#pragma unroll
    for (int e = 0; e < 4; e++) v[e] = k + e < d ? to_float(vector[k + e]) : 0.0f;
}

__device__ __forceinline__ void store_four(float *at, const float *v) {
    *reinterpret_cast<float4 *>(at) = make_float4(v[0], v[1], v[2], v[3]);
}
__device__ __forceinline__ void store_four(bf16 *at, const float *v) {
    *reinterpret_cast<uint2 *>(at) = make_uint2(pack_bf16(v[0], v[1]), pack_bf16(v[2], v[3]));
}

// v to elements k .. k + 4 of a vector of d, as far as there are.
__device__ __forceinline__ void store_part(element *vector, int k, int d, bool aligned, const float *v) {
    if (aligned && k < d) return store_four(vector + k, v);
#pragma unroll
    for (int e = 0; e < 4; e++)
        if (k + e < d) from_float(v[e], vector[k + e]);
}

// sums[i][e] += G times the others for own vectors r + 8 i and elements 4 c + e of each of HALVES halves of WIDTH, the
// second from e = 4 on; `weights` is G: [OWN, PART others of a tile], `others`: [PART, WIDTH].
template <int HALVES>
__device__ __forceinline__ void accumulate(float (&sums)[8][8], const float *weights, const float *others) {
#pragma unroll
    for (int at = 0; at < PART; at += 4) {
        float g[8][4];
#pragma unroll
        for (int i = 0; i < 8; i++) {
            const float *row = weights + (own_lane() + 8 * i) * WEIGHT_STRIDE + at;
            const float4 four = *reinterpret_cast<const float4 *>(row);
            g[i][0] = four.x, g[i][1] = four.y, g[i][2] = four.z, g[i][3] = four.w;
        }
#pragma unroll
        for (int q = 0; q < 4; q++) {
#pragma unroll
            for (int half = 0; half < HALVES; half++) {
                const float *other = others + (at + q) * WIDTH + half * (WIDTH / 2) + 4 * other_lane();
                const float4 four = *reinterpret_cast<const float4 *>(other);
                const float v[4] = {four.x, four.y, four.z, four.w};
#pragma unroll
                for (int i = 0; i < 8; i++)
#pragma unroll
                    for (int e = 0; e < 4; e++) sums[i][4 * half + e] = fmaf(g[i][q], v[e], sums[i][4 * half + e]);
            }
        }
    }
}

// out: [own_count, D], the gradient of `own` from `other`; own are the rows if BY_ROW, else the columns.
// vectors: [R, D] and vector_weights: [R] are the positives' share of drows, or null.
template <bool BY_ROW>
__device__ __forceinline__ void gradient(const element *own, int own_count, const element *other, int other_count,
                                         const i32 *positives, const float *dloss, const float *lse, element *out,
                                         const element *vectors, const float *vector_weights, const Problem &p) {
    // First the staged vectors of both sides, then G: [OWN, WEIGHT_STRIDE].
    __shared__ __align__(16) float shared[OWN * WEIGHT_STRIDE];
    __shared__ __align__(16) float others[PART * WIDTH];
    __shared__ Facts<BY_ROW ? OWN : OTHER> facts;
    const int first = blockIdx.x * OWN, width_start = blockIdx.y * WIDTH;
    float sums[8][8];
#pragma unroll
    for (int i = 0; i < 8; i++)
#pragma unroll
        for (int e = 0; e < 8; e++) sums[i][e] = 0.0f;
    if (BY_ROW) facts.load(p, first, positives, dloss, lse);
    for (int start = 0; start < other_count; start += OTHER) {
        // The last use of the facts before these lies behind the barriers of the products with others.
        if (!BY_ROW) facts.load(p, start, positives, dloss, lse);
        float s[8][8];
        products(s, shared, own, first, own_count, other, start, other_count, p.d, p.aligned);
        __syncthreads(); // whoever still reads the staged vectors is done
#pragma unroll
        for (int i = 0; i < 8; i++) {
            const int own_at = own_lane() + 8 * i;
#pragma unroll
            for (int j = 0; j < 8; j++) {
                const int other_at = other_lane() + 16 * j;
                const float g = BY_ROW ? facts.weight(p, own_at, first + own_at, start + other_at, s[i][j])
                                       : facts.weight(p, other_at, start + other_at, first + own_at, s[i][j]);
                shared[own_at * WEIGHT_STRIDE + other_at] = g;
            }
        }
        for (int part = 0; part < OTHER && start + part < other_count; part += PART) {
            __syncthreads(); // whoever still reads the others before these is done
            stage<PART, WIDTH, WIDTH>(others, other, start + part, other_count, width_start, p.d, p.aligned);
            __syncthreads(); // the others are written, and G
            if (width_start + WIDTH / 2 < p.d) accumulate<2>(sums, shared + part, others);
            else accumulate<1>(sums, shared + part, others);
        }
    }
    if (BY_ROW) __syncthreads(); // the facts are written where there was no other
#pragma unroll
    for (int i = 0; i < 8; i++) {
        const int own_at = own_lane() + 8 * i, vector = first + own_at;
        if (vector >= own_count) continue;
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const int k = width_start + half * (WIDTH / 2) + 4 * other_lane();
            float *v = sums[i] + 4 * half;
            if (BY_ROW && vectors) {
                float positive[4];
                load_four(vectors + u64(vector) * p.d, k, p.d, positive);
#pragma unroll
                for (int e = 0; e < 4; e++) v[e] = fmaf(vector_weights[vector], positive[e], v[e]);
            }
            if (BY_ROW && facts.positive[own_at] == INVALID) v[0] = v[1] = v[2] = v[3] = NOT_A_NUMBER;
            store_part(out + u64(vector) * p.d, k, p.d, p.aligned, v);
        }
    }
}

// drows: [R, D]. positives: [R] or null; vectors: [R, D] with their weights: [R], or null.
KERNEL __launch_bounds__(THREADS)
    ENTRY(ntxent_bwd_rows)(const element *rows, const element *columns, const i32 *positives, const float *dloss,
                           const float *lse, const element *vectors, const float *vector_weights, element *drows,
                           Problem p) {
    gradient<true>(rows, p.rows, columns, p.columns, positives, dloss, lse, drows, vectors, vector_weights, p);
}

// dcolumns: [C, D].
KERNEL __launch_bounds__(THREADS)
    ENTRY(ntxent_bwd_columns)(const element *rows, const element *columns, const i32 *positives, const float *dloss,
                              const float *lse, element *dcolumns, Problem p) {
    gradient<false>(columns, p.columns, rows, p.rows, positives, dloss, lse, dcolumns, nullptr, nullptr, p);
}

// Positives that are vectors: [R, D]: weights: [R], each row's factor dloss (e^(s - lse) - 1) / temperature, and
// dpositive: [R, D], that factor times the row. A warp a row.
KERNEL ENTRY(ntxent_bwd_positive)(const element *rows, const element *vectors, const float *dloss, const float *lse,
                                  float *weights, element *dpositive, Problem p) {
    const u64 row = u64(blockIdx.x) * (blockDim.x / 32) + warp_id();
    if (row >= u64(p.rows)) return;
    rows += row * p.d, vectors += row * p.d, dpositive += row * p.d;
    const float s = over_temperature(p, inner_product(rows, vectors, p.d));
    const float weight = expm1f(s - lse[row]) * dloss[row] / p.temperature;
    if (lane_id() == 0) weights[row] = weight;
    for (int k = lane_id(); k < p.d; k += 32) from_float(weight * to_float(rows[k]), dpositive[k]);
}
