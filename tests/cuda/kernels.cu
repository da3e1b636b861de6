// Kernels for tests of what goes wrong: x[i] = value for every i < n, whatever room x has.

extern "C" __global__ void test_fill(float *x, unsigned long long n, float value) {
    unsigned long long i = (unsigned long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) x[i] = value;
}

// x[i] *= value; x: [n]
extern "C" __global__ void test_scale(float *x, unsigned long long n, float value) {
    unsigned long long i = (unsigned long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) x[i] *= value;
}
