// Kernels of the programs that tests/emulate.rs runs. One thread does one element.

// sum[i] = a[i] + b[i]
extern "C" __global__ void vector_add(const float *a, const float *b, float *sum, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) {
        sum[i] = a[i] + b[i];
    }
}

// x[i] = factor * x[i] + term
extern "C" __global__ void scale_add(float *x, float factor, float term, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) {
        x[i] = fmaf(factor, x[i], term);
    }
}

// Each block reverses its own part of x, through as much dynamic shared memory as it has threads.
extern "C" __global__ void reverse_blocks(float *x) {
    extern __shared__ float part[]; // [blockDim.x]
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    part[threadIdx.x] = x[i];
    __syncthreads(); // all of the block's part is there before it is read
    x[i] = part[blockDim.x - 1 - threadIdx.x];
}
