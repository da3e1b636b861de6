// reduce.cu: total[c] = sum over rows of x[r, c] in float32, in one launch and in an order that does not
// depend on the schedule.
//
// Blocks form a grid of column stripes by row splits. In a block, lane l of every warp takes columns 4 l
// .. 4 l + 3 of the stripe's 128 and warp w every eighth row of the split; the warps' sums meet in shared
// memory and the block writes one row of partial sums. The block that is last to arrive at a stripe's
// counter adds the stripe's partials in order of the split, and leaves the counter at zero for the next
// launch. Nobody waits for another block.

typedef unsigned int u32;

#define WARPS 8
#define STRIPE 128

extern "C" __global__ void __launch_bounds__(WARPS * 32) column_sum(
    const float* __restrict__ x,  // [rows, columns]
    float* partial,               // [gridDim.y, columns]
    u32* arrived,                 // [gridDim.x], zero before and after
    float* total,                 // [columns]
    int rows, int columns) {
    __shared__ __align__(16) float sums[WARPS][STRIPE];
    __shared__ bool last;
    const int lane = threadIdx.x % 32;
    const int warp = threadIdx.x / 32;
    const int stripe = blockIdx.x * STRIPE;
    const int column = stripe + 4 * lane;

    float4 sum = {0.0f, 0.0f, 0.0f, 0.0f};
    for (int row = blockIdx.y * WARPS + warp; row < rows; row += gridDim.y * WARPS) {
        const float* in = x + (long long)row * columns + column;
        if (columns % 4 == 0) {
            if (column < columns) {
                const float4 four = *(const float4*)in;
                sum = {sum.x + four.x, sum.y + four.y, sum.z + four.z, sum.w + four.w};
            }
        } else {
            sum.x += column < columns ? in[0] : 0.0f;
            sum.y += column + 1 < columns ? in[1] : 0.0f;
            sum.z += column + 2 < columns ? in[2] : 0.0f;
            sum.w += column + 3 < columns ? in[3] : 0.0f;
        }
    }
    *(float4*)&sums[warp][4 * lane] = sum;
    __syncthreads();  // Writing the warps' sums | adding them.
    const int mine = stripe + threadIdx.x;
    if (threadIdx.x < STRIPE && mine < columns) {
        float block_sum = 0.0f;
        for (int w = 0; w < WARPS; w++) {
            block_sum += sums[w][threadIdx.x];
        }
        partial[(long long)blockIdx.y * columns + mine] = block_sum;
    }
    __syncthreads();  // Writing this block's partials | announcing them.
    if (threadIdx.x == 0) {
        __threadfence();  // This block's partials are visible before its arrival is.
        last = atomicAdd(&arrived[blockIdx.x], 1u) == gridDim.y - 1;
        __threadfence();  // The other blocks' partials are read after their arrival.
    }
    __syncthreads();  // Deciding which block is last | acting on it.
    if (last) {
        if (threadIdx.x < STRIPE && mine < columns) {
            float column_total = 0.0f;
            for (int split = 0; split < gridDim.y; split++) {
                column_total += partial[(long long)split * columns + mine];
            }
            total[mine] = column_total;
        }
        if (threadIdx.x == 0) {
            arrived[blockIdx.x] = 0;
        }
    }
}
