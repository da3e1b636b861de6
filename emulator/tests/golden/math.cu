// CUDA's own functions, which the compiler expands to several instructions: row i of y is function i of x.
extern "C" __global__ void functions(const float* x_all, float* y, long long count) {
    const int n = (int)count;
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x) {
        const float x = x_all[i];
        y[i] = expf(x);
        y[n + i] = logf(x);
        y[2 * n + i] = tanhf(x);
        y[3 * n + i] = erff(x);
        y[4 * n + i] = sqrtf(x);
        y[5 * n + i] = 1.f / x;
        y[6 * n + i] = sinf(x);
        y[7 * n + i] = cosf(x);
        y[8 * n + i] = fmaf(x, x, -x);
        y[9 * n + i] = x * x + x;
        y[10 * n + i] = powf(fabsf(x), 1.7f);
        y[11 * n + i] = __expf(x);
    }
}
