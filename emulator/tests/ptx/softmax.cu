// Row softmax: shuffles, __expf, static shared memory.
typedef unsigned int u32;
extern "C" __global__ void __launch_bounds__(256) softmax(const float* __restrict__ x, float* __restrict__ y, int n) {
    __shared__ float part[8];
    const float* row = x + (size_t)blockIdx.x * n;
    float m = -1.0f / 0.0f;
    #pragma unroll 1
    for (int i = threadIdx.x; i < n; i += 256) m = fmaxf(m, row[i]);
    for (int o = 16; o; o >>= 1) m = fmaxf(m, __shfl_xor_sync(~0u, m, o));
    if (threadIdx.x % 32 == 0) part[threadIdx.x / 32] = m;
    __syncthreads();
    m = part[threadIdx.x % 8];
    for (int o = 4; o; o >>= 1) m = fmaxf(m, __shfl_xor_sync(~0u, m, o, 8));
    __syncthreads();
    float s = 0.0f;
    #pragma unroll 1
    for (int i = threadIdx.x; i < n; i += 256) s += __expf(row[i] - m);
    for (int o = 16; o; o >>= 1) s += __shfl_xor_sync(~0u, s, o);
    if (threadIdx.x % 32 == 0) part[threadIdx.x / 32] = s;
    __syncthreads();
    s = part[threadIdx.x % 8];
    for (int o = 4; o; o >>= 1) s += __shfl_xor_sync(~0u, s, o, 8);
    #pragma unroll 1
    for (int i = threadIdx.x; i < n; i += 256) y[(size_t)blockIdx.x * n + i] = __expf(row[i] - m) / s;
}
