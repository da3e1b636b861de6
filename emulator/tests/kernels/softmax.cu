// softmax.cu: y[r, c] = exp(x[r, c] - max_r) / sum_c exp(x[r, c] - max_r) in float32, for rows of any
// length. A row of -infinity gives zeros.
//
// One block of 256 threads takes one row at a time, then the row gridDim.x further on. In a first pass
// every thread keeps the maximum of what it has read and the sum of exponentials relative to it; warps
// merge those pairs by shuffles, the block through shared memory. A second pass, over a row that lies in
// L2 by then, writes the quotients: the exponentials are never stored. Rows whose length is a multiple of
// four are read and written 16 bytes at a time.

#define WARPS 8
#define FULL 0xffffffffu

struct Partial {
    float maximum;
    float sum;  // of exp(x - maximum)
};

__device__ __forceinline__ float minus_infinity() { return __int_as_float(0xff800000); }

// What is subtracted before an exponential: the maximum, or zero where nothing but -infinity was seen.
__device__ __forceinline__ float shift_of(float maximum) { return maximum == minus_infinity() ? 0.0f : maximum; }

__device__ __forceinline__ Partial merge(Partial a, Partial b) {
    const float maximum = fmaxf(a.maximum, b.maximum);
    const float shift = shift_of(maximum);
    return {maximum, a.sum * expf(a.maximum - shift) + b.sum * expf(b.maximum - shift)};
}

__device__ __forceinline__ Partial include(Partial a, float4 x) {
    const float maximum = fmaxf(fmaxf(a.maximum, fmaxf(x.x, x.y)), fmaxf(x.z, x.w));
    const float shift = shift_of(maximum);
    const float fresh = (expf(x.x - shift) + expf(x.y - shift)) + (expf(x.z - shift) + expf(x.w - shift));
    return {maximum, a.sum * expf(a.maximum - shift) + fresh};
}

extern "C" __global__ void __launch_bounds__(WARPS * 32) softmax_fwd(
    const float* __restrict__ x,  // [rows, columns]
    float* __restrict__ y,        // [rows, columns]
    int rows, int columns) {
    __shared__ Partial partials[WARPS];
    const int lane = threadIdx.x % 32;
    const int warp = threadIdx.x / 32;
    const bool vectors = columns % 4 == 0;

    for (int row = blockIdx.x; row < rows; row += gridDim.x) {
        const float* in = x + (long long)row * columns;
        float* out = y + (long long)row * columns;

        Partial mine = {minus_infinity(), 0.0f};
        if (vectors) {
            for (int i = threadIdx.x; i < columns / 4; i += blockDim.x) {
                const float4 four = ((const float4*)in)[i];
                mine = include(mine, four);
            }
        } else {
            for (int i = threadIdx.x; i < columns; i += blockDim.x) {
                const float one = in[i];
                mine = merge(mine, {one, 1.0f});
            }
        }
        for (int distance = 16; distance > 0; distance /= 2) {
            const float maximum = __shfl_xor_sync(FULL, mine.maximum, distance);
            const float sum = __shfl_xor_sync(FULL, mine.sum, distance);
            mine = merge(mine, {maximum, sum});
        }
        if (lane == 0) {
            partials[warp] = mine;
        }
        __syncthreads();  // Writing the warps' partials | reading all of them.
        Partial all = partials[0];
        for (int w = 1; w < WARPS; w++) {
            all = merge(all, partials[w]);
        }
        __syncthreads();  // Reading this row's partials | writing the next row's.

        const float shift = shift_of(all.maximum);
        const float scale = all.sum > 0.0f ? 1.0f / all.sum : 0.0f;
        if (vectors) {
            for (int i = threadIdx.x; i < columns / 4; i += blockDim.x) {
                const float4 four = ((const float4*)in)[i];
                const float4 result = {expf(four.x - shift) * scale, expf(four.y - shift) * scale,
                                       expf(four.z - shift) * scale, expf(four.w - shift) * scale};
                ((float4*)out)[i] = result;
            }
        } else {
            for (int i = threadIdx.x; i < columns; i += blockDim.x) {
                out[i] = expf(in[i] - shift) * scale;
            }
        }
    }
}
