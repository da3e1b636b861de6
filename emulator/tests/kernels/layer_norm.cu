// layer_norm.cu: y = (x - mean) / sqrt(variance + epsilon) * gamma + beta over the last dimension; bf16 in
// and out, statistics in float32, mean and 1/sqrt(variance + epsilon) kept for the backward pass.
//
// One warp takes one row of at most 1024 elements and holds all of it in registers, so x is read once and
// the variance is taken about the mean in a second pass over registers. Lane l holds elements 8 (l + 32 c)
// .. + 7 for c = 0 .. 3. Rows whose width is a multiple of eight move 16 bytes at a time. Nobody waits for
// anybody outside the warp.

typedef unsigned short u16;  // bf16 bits
typedef unsigned int u32;

#define WARPS 4
#define CHUNKS 4
#define FULL 0xffffffffu

__device__ __forceinline__ float low(u32 pair) { return __uint_as_float(pair << 16); }
__device__ __forceinline__ float high(u32 pair) { return __uint_as_float(pair & 0xffff0000u); }

__device__ __forceinline__ u32 pack(float low, float high) {
    u32 pair;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
    return pair;
}

__device__ __forceinline__ float warp_sum(float value) {
    for (int distance = 16; distance > 0; distance /= 2) {
        value += __shfl_xor_sync(FULL, value, distance);
    }
    return value;
}

extern "C" __global__ void __launch_bounds__(WARPS * 32) layer_norm_fwd(
    const u16* __restrict__ x,        // [rows, width]
    const float* __restrict__ gamma,  // [width]
    const float* __restrict__ beta,   // [width]
    u16* __restrict__ y,              // [rows, width]
    float* __restrict__ mean_out,     // [rows]
    float* __restrict__ rstd_out,     // [rows]
    int rows, int width, float epsilon) {
    const int lane = threadIdx.x % 32;
    const int row = blockIdx.x * WARPS + threadIdx.x / 32;
    const bool vectors = width % 8 == 0;
    if (row >= rows) {
        return;
    }
    const u16* in = x + (long long)row * width;
    u16* out = y + (long long)row * width;

    float value[CHUNKS][8];
    float sum = 0.0f;
#pragma unroll
    for (int c = 0; c < CHUNKS; c++) {
        const int first = (c * 32 + lane) * 8;
        uint4 packed = {0, 0, 0, 0};
        if (vectors) {
            if (first < width) {
                packed = *(const uint4*)(in + first);
            }
        } else {
            u32 word[4];
#pragma unroll
            for (int j = 0; j < 4; j++) {
                const u32 even = first + 2 * j < width ? in[first + 2 * j] : 0;
                const u32 odd = first + 2 * j + 1 < width ? in[first + 2 * j + 1] : 0;
                word[j] = odd << 16 | even;
            }
            packed = {word[0], word[1], word[2], word[3]};
        }
        value[c][0] = low(packed.x);
        value[c][1] = high(packed.x);
        value[c][2] = low(packed.y);
        value[c][3] = high(packed.y);
        value[c][4] = low(packed.z);
        value[c][5] = high(packed.z);
        value[c][6] = low(packed.w);
        value[c][7] = high(packed.w);
#pragma unroll
        for (int j = 0; j < 8; j++) {
            sum += value[c][j];
        }
    }
    const float mean = warp_sum(sum) / width;

    float squares = 0.0f;
#pragma unroll
    for (int c = 0; c < CHUNKS; c++) {
#pragma unroll
        for (int j = 0; j < 8; j++) {
            if ((c * 32 + lane) * 8 + j < width) {
                value[c][j] -= mean;
                squares = fmaf(value[c][j], value[c][j], squares);
            }
        }
    }
    const float rstd = rsqrtf(warp_sum(squares) / width + epsilon);
    if (lane == 0) {
        mean_out[row] = mean;
        rstd_out[row] = rstd;
    }

#pragma unroll
    for (int c = 0; c < CHUNKS; c++) {
        const int first = (c * 32 + lane) * 8;
        if (vectors) {
            if (first < width) {
                const float4 g0 = *(const float4*)(gamma + first);
                const float4 g1 = *(const float4*)(gamma + first + 4);
                const float4 b0 = *(const float4*)(beta + first);
                const float4 b1 = *(const float4*)(beta + first + 4);
                uint4 packed;
                packed.x = pack(fmaf(value[c][0] * rstd, g0.x, b0.x), fmaf(value[c][1] * rstd, g0.y, b0.y));
                packed.y = pack(fmaf(value[c][2] * rstd, g0.z, b0.z), fmaf(value[c][3] * rstd, g0.w, b0.w));
                packed.z = pack(fmaf(value[c][4] * rstd, g1.x, b1.x), fmaf(value[c][5] * rstd, g1.y, b1.y));
                packed.w = pack(fmaf(value[c][6] * rstd, g1.z, b1.z), fmaf(value[c][7] * rstd, g1.w, b1.w));
                *(uint4*)(out + first) = packed;
            }
        } else {
#pragma unroll
            for (int j = 0; j < 8; j++) {
                if (first + j < width) {
                    const float result = fmaf(value[c][j] * rstd, gamma[first + j], beta[first + j]);
                    out[first + j] = (u16)pack(result, 0.0f);
                }
            }
        }
    }
}
