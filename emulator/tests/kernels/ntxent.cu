// ntxent.cu: the NT-Xent loss of SimCLR (Chen et al., arXiv 2002.05709, equation 1) on 2 N normalised
// rows, where rows i and i + N are two views of one image: loss_i = lse_i - s(i, pair), lse_i = log sum
// over j != i of exp s(i, j), s(i, j) = u_i . u_j / temperature. The similarity matrix is never stored.
//
// A block of 256 threads takes 32 rows and walks over all columns in tiles of 32. Eight threads share a
// row: thread (r, c) computes the similarities of row r with columns c, c + 8, c + 16, c + 24 of the tile,
// from slices of 32 features of both sides in shared memory, and keeps a running maximum and sum. Eight
// lanes merge theirs at the end.

#define TILE 32
#define SLICE 32
#define SHARERS 8
#define PITCH (SLICE + 4)  // Elements: rows stay 16-byte aligned, neighbours start four banks apart.
#define FULL 0xffffffffu

__device__ __forceinline__ float minus_infinity() { return __int_as_float(0xff800000); }

// Copies features first_feature .. + 31 of rows first .. + 31; zeros outside.
__device__ __forceinline__ void load_slice(float (&slice)[TILE][PITCH], const float* u, int first, int first_feature,
                                           int rows, int features) {
    const int row = first + threadIdx.x / SHARERS;
    const int feature = first_feature + threadIdx.x % SHARERS * 4;
    float4 four = {0.0f, 0.0f, 0.0f, 0.0f};
    if (row < rows) {
        const float* from = u + (long long)row * features + feature;
        if (features % 4 == 0) {
            if (feature < features) {
                four = *(const float4*)from;
            }
        } else {
            four.x = feature < features ? from[0] : 0.0f;
            four.y = feature + 1 < features ? from[1] : 0.0f;
            four.z = feature + 2 < features ? from[2] : 0.0f;
            four.w = feature + 3 < features ? from[3] : 0.0f;
        }
    }
    *(float4*)&slice[threadIdx.x / SHARERS][threadIdx.x % SHARERS * 4] = four;
}

extern "C" __global__ void __launch_bounds__(TILE * SHARERS) ntxent_fwd(
    const float* __restrict__ u,  // [rows, features], rows of length one
    float* __restrict__ loss,     // [rows]
    float* __restrict__ lse,      // [rows]
    int rows, int features, float inverse_temperature) {
    __shared__ __align__(16) float row_slice[TILE][PITCH];
    __shared__ __align__(16) float column_slice[TILE][PITCH];
    const int local_row = threadIdx.x / SHARERS;
    const int sharer = threadIdx.x % SHARERS;
    const int row = blockIdx.x * TILE + local_row;
    const int pair = row < rows / 2 ? row + rows / 2 : row - rows / 2;

    float maximum = minus_infinity();
    float sum = 0.0f;
    float positive = minus_infinity();
    for (int tile = 0; tile < rows; tile += TILE) {
        float dot[4] = {0.0f, 0.0f, 0.0f, 0.0f};
        for (int feature = 0; feature < features; feature += SLICE) {
            load_slice(row_slice, u, blockIdx.x * TILE, feature, rows, features);
            load_slice(column_slice, u, tile, feature, rows, features);
            __syncthreads();  // Writing the slices | reading them.
#pragma unroll
            for (int k = 0; k < SLICE; k += 4) {
                const float4 a = *(const float4*)&row_slice[local_row][k];
#pragma unroll
                for (int j = 0; j < 4; j++) {
                    const float4 b = *(const float4*)&column_slice[sharer + SHARERS * j][k];
                    dot[j] = fmaf(a.x, b.x, fmaf(a.y, b.y, fmaf(a.z, b.z, fmaf(a.w, b.w, dot[j]))));
                }
            }
            __syncthreads();  // Reading the slices | overwriting them with the next.
        }
#pragma unroll
        for (int j = 0; j < 4; j++) {
            const int column = tile + sharer + SHARERS * j;
            const float similarity = dot[j] * inverse_temperature;
            if (column < rows && column != row) {
                const float fresh = fmaxf(maximum, similarity);
                sum = sum * expf(maximum - fresh) + expf(similarity - fresh);
                maximum = fresh;
                if (column == pair) {
                    positive = similarity;
                }
            }
        }
    }
#pragma unroll
    for (int distance = SHARERS / 2; distance > 0; distance /= 2) {
        const float other = __shfl_xor_sync(FULL, maximum, distance);
        const float other_sum = __shfl_xor_sync(FULL, sum, distance);
        const float other_positive = __shfl_xor_sync(FULL, positive, distance);
        const float fresh = fmaxf(maximum, other);
        const float shift = fresh == minus_infinity() ? 0.0f : fresh;
        sum = sum * expf(maximum - shift) + other_sum * expf(other - shift);
        maximum = fresh;
        positive = fmaxf(positive, other_positive);
    }
    if (sharer == 0 && row < rows) {
        const float result = maximum + logf(sum);
        lse[row] = result;
        loss[row] = result - positive;
    }
}
