// softmax_xent.cu: loss[b] = lse[b] - logits[b, label[b]] with lse[b] = log sum_v exp(logits[b, v]); bf16
// logits, float32 results. Reads the logits once and never materialises probabilities.
//
// One block of 256 threads a row. Rows of any length start at any even address: the block reads single
// elements up to the first address that is a multiple of 16, then 16 bytes a thread, then single elements.
// Whoever meets the label's element keeps it. Threads keep a maximum and a sum relative to it; warps merge
// by shuffles, warp 0 what the warps left in shared memory.

typedef unsigned short u16;  // bf16 bits
typedef unsigned int u32;

#define WARPS 8
#define FULL 0xffffffffu

struct Running {
    float maximum;
    float sum;     // of exp(x - maximum)
    float picked;  // the label's logit, where this thread met it
};

__device__ __forceinline__ float low(u32 pair) { return __uint_as_float(pair << 16); }
__device__ __forceinline__ float high(u32 pair) { return __uint_as_float(pair & 0xffff0000u); }
__device__ __forceinline__ float minus_infinity() { return __int_as_float(0xff800000); }

// Rescales to a maximum that includes x, then adds x.
__device__ __forceinline__ void include(Running& r, float x, int index, int label) {
    const float maximum = fmaxf(r.maximum, x);
    r.sum = r.sum * __expf(r.maximum - maximum) + __expf(x - maximum);
    r.maximum = maximum;
    r.picked = index == label ? x : r.picked;
}

__device__ __forceinline__ void merge(Running& r, float maximum, float sum, float picked) {
    const float both = fmaxf(r.maximum, maximum);
    const float shift = both == minus_infinity() ? 0.0f : both;
    r.sum = r.sum * __expf(r.maximum - shift) + sum * __expf(maximum - shift);
    r.maximum = both;
    r.picked = fmaxf(r.picked, picked);
}

__device__ __forceinline__ void merge_warp(Running& r) {
#pragma unroll
    for (int distance = 16; distance > 0; distance /= 2) {
        const float maximum = __shfl_down_sync(FULL, r.maximum, distance);
        const float sum = __shfl_down_sync(FULL, r.sum, distance);
        const float picked = __shfl_down_sync(FULL, r.picked, distance);
        merge(r, maximum, sum, picked);
    }
}

extern "C" __global__ void __launch_bounds__(WARPS * 32) softmax_xent_fwd(
    const u16* __restrict__ logits,  // [batch, classes]
    const int* __restrict__ label,   // [batch]
    float* __restrict__ loss,        // [batch]
    float* __restrict__ lse,         // [batch]
    int classes) {
    __shared__ Running partials[WARPS];
    const int row = blockIdx.x;
    const u16* in = logits + (long long)row * classes;
    const int target = label[row];

    const int before = min((int)((16 - ((unsigned long long)in & 15)) & 15) / 2, classes);
    const int vectors = (classes - before) / 8;
    const int after = before + vectors * 8;
    Running mine = {minus_infinity(), 0.0f, minus_infinity()};
    if (threadIdx.x < before) {
        include(mine, low(in[threadIdx.x]), threadIdx.x, target);
    }
    for (int i = threadIdx.x; i < vectors; i += blockDim.x) {
        const int first = before + i * 8;
        const uint4 eight = *(const uint4*)(in + first);
        include(mine, low(eight.x), first, target);
        include(mine, high(eight.x), first + 1, target);
        include(mine, low(eight.y), first + 2, target);
        include(mine, high(eight.y), first + 3, target);
        include(mine, low(eight.z), first + 4, target);
        include(mine, high(eight.z), first + 5, target);
        include(mine, low(eight.w), first + 6, target);
        include(mine, high(eight.w), first + 7, target);
    }
    if (after + threadIdx.x < classes) {
        include(mine, low(in[after + threadIdx.x]), after + threadIdx.x, target);
    }

    merge_warp(mine);
    if (threadIdx.x % 32 == 0) {
        partials[threadIdx.x / 32] = mine;
    }
    __syncthreads();  // Writing the warps' partials | warp 0 reading them.
    if (threadIdx.x < 32) {
        Running all = {minus_infinity(), 0.0f, minus_infinity()};
        if (threadIdx.x < WARPS) {
            all = partials[threadIdx.x];
        }
        merge_warp(all);
        if (threadIdx.x == 0) {
            const float result = all.maximum + __logf(all.sum);
            lse[row] = result;
            loss[row] = result - all.picked;
        }
    }
}
