// gelu.cu: z = x + bias and y = gelu(z), bf16 in and out, arithmetic in float32; z is kept for the
// backward pass. One entry a form of GELU: exact (erf), the tanh approximation, and the sigmoid
// approximation z / (1 + exp(-1.702 z)).
//
// A thread takes eight neighbouring elements of the flattened tensor, 16 bytes, then eight more a grid
// further on; the last few elements of a tensor whose size is not a multiple of eight go one by one.
// Threads do not meet.

typedef unsigned short u16;  // bf16 bits
typedef unsigned int u32;

__device__ __forceinline__ float low(u32 pair) { return __uint_as_float(pair << 16); }
__device__ __forceinline__ float high(u32 pair) { return __uint_as_float(pair & 0xffff0000u); }

__device__ __forceinline__ u32 pack(float low, float high) {
    u32 pair;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
    return pair;
}

struct Erf {
    static __device__ __forceinline__ float gelu(float z) { return 0.5f * z * (1.0f + erff(z * 0.70710678f)); }
};

struct Tanh {
    static __device__ __forceinline__ float gelu(float z) {
        return 0.5f * z * (1.0f + tanhf(0.79788456f * (z + 0.044715f * z * z * z)));
    }
};

struct Sigmoid {
    static __device__ __forceinline__ float gelu(float z) { return z / (1.0f + expf(-1.702f * z)); }
};

// Adds the bias of two neighbours, the first in column *column, which moves on by two; rounds to bf16 as z, and gives gelu
// of what was rounded.
template <class Form>
__device__ __forceinline__ u32 two(u32 x, const float* bias, int* column, int width, u32* z) {
    const float bias_low = bias[*column];
    *column = *column + 1 == width ? 0 : *column + 1;
    const float bias_high = bias[*column];
    *column = *column + 1 == width ? 0 : *column + 1;
    *z = pack(low(x) + bias_low, high(x) + bias_high);
    return pack(Form::gelu(low(*z)), Form::gelu(high(*z)));
}

template <class Form>
__device__ __forceinline__ void bias_gelu(const u16* __restrict__ x, const float* __restrict__ bias,
                                          u16* __restrict__ z, u16* __restrict__ y, long long count, int width) {
    const long long thread = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    const long long stride = (long long)gridDim.x * blockDim.x * 8;
    for (long long first = thread * 8; first < count; first += stride) {
        int column = first % width;
        if (first + 8 <= count) {
            const uint4 in = *(const uint4*)(x + first);
            uint4 sum, result;
            result.x = two<Form>(in.x, bias, &column, width, &sum.x);
            result.y = two<Form>(in.y, bias, &column, width, &sum.y);
            result.z = two<Form>(in.z, bias, &column, width, &sum.z);
            result.w = two<Form>(in.w, bias, &column, width, &sum.w);
            *(uint4*)(z + first) = sum;
            *(uint4*)(y + first) = result;
        } else {
            for (long long i = first; i < count; i++) {
                u32 sum;
                const u32 result = two<Form>(x[i], bias, &column, width, &sum);
                column = (i + 1) % width;
                z[i] = (u16)sum;
                y[i] = (u16)result;
            }
        }
    }
}

extern "C" __global__ void __launch_bounds__(256) bias_gelu_erf_fwd(
    const u16* __restrict__ x,       // [count / width, width]
    const float* __restrict__ bias,  // [width]
    u16* __restrict__ z,             // like x
    u16* __restrict__ y,             // like x
    long long count, int width) {
    bias_gelu<Erf>(x, bias, z, y, count, width);
}

extern "C" __global__ void __launch_bounds__(256) bias_gelu_tanh_fwd(
    const u16* __restrict__ x, const float* __restrict__ bias, u16* __restrict__ z, u16* __restrict__ y,
    long long count, int width) {
    bias_gelu<Tanh>(x, bias, z, y, count, width);
}

extern "C" __global__ void __launch_bounds__(256) bias_gelu_sigmoid_fwd(
    const u16* __restrict__ x, const float* __restrict__ bias, u16* __restrict__ z, u16* __restrict__ y,
    long long count, int width) {
    bias_gelu<Sigmoid>(x, bias, z, y, count, width);
}
