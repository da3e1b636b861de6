// histogram.cu: how many values fall into each of `bins` equal parts of [low, high), values outside
// counted at the ends; and the least and the greatest value.
//
// Blocks of 256 threads stride over the values, count in shared memory by integer atomics, and add their
// counts to the global ones. The greatest value travels as an unsigned integer whose order is that of
// floats and is kept by atomicMax; the least stays a float and is kept by a compare-and-swap loop. Integer
// sums and extrema do not depend on the order.

typedef unsigned int u32;

#define MAX_BINS 256
#define FULL 0xffffffffu

// Maps floats to integers of the same order: negative ones have all bits flipped, others the sign bit.
__device__ __forceinline__ u32 ordered(float x) {
    const u32 bits = __float_as_uint(x);
    return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

__device__ __forceinline__ void keep_least(float* least, float x) {
    u32* bits = (u32*)least;
    u32 seen = atomicAdd(bits, 0u);
    while (x < __uint_as_float(seen)) {
        const u32 expected = seen;
        seen = atomicCAS(bits, expected, __float_as_uint(x));
        if (seen == expected) {
            break;
        }
    }
}

extern "C" __global__ void __launch_bounds__(256) histogram(
    const float* __restrict__ values,  // [count]
    u32* counts,                       // [bins], added to
    float* least,                      // [1], lowered
    u32* greatest,                     // [1], raised; see ordered()
    int count, int bins, float low, float high) {
    __shared__ u32 local[MAX_BINS];
    for (int bin = threadIdx.x; bin < bins; bin += blockDim.x) {
        local[bin] = 0;
    }
    __syncthreads();  // Clearing the block's counts | counting.
    const float scale = bins / (high - low);
    float smallest = __int_as_float(0x7f800000);
    float largest = __int_as_float(0xff800000);
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < count; i += gridDim.x * blockDim.x) {
        const float value = values[i];
        smallest = fminf(smallest, value);
        largest = fmaxf(largest, value);
        const int bin = (int)floorf((value - low) * scale);
        atomicAdd(&local[min(max(bin, 0), bins - 1)], 1u);
    }
    __syncthreads();  // Counting | adding up.
    for (int bin = threadIdx.x; bin < bins; bin += blockDim.x) {
        if (local[bin] > 0) {
            atomicAdd(&counts[bin], local[bin]);
        }
    }
    for (int distance = 16; distance > 0; distance /= 2) {
        smallest = fminf(smallest, __shfl_xor_sync(FULL, smallest, distance));
        largest = fmaxf(largest, __shfl_xor_sync(FULL, largest, distance));
    }
    if (threadIdx.x % 32 == 0) {
        keep_least(least, smallest);
        atomicMax(greatest, ordered(largest));
    }
}
