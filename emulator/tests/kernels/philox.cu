// philox.cu: uniform random numbers from Philox4x32-10 (Salmon et al., SC 2011), equal on every device: as
// 32-bit words or as float32 in [0, 1) with 24 random bits.
//
// Thread t encrypts the counter (offset + t) under the 64-bit seed and so makes four neighbouring outputs,
// stored 16 bytes at a time; the thread at a ragged end keeps its four words in an array and stores what
// fits. Threads do not meet.

typedef unsigned int u32;
typedef unsigned long long u64;

struct Words {
    u32 word[4];
};

__device__ __forceinline__ Words philox(u64 seed, u64 counter) {
    u32 key0 = (u32)seed;
    u32 key1 = (u32)(seed >> 32);
    u32 c0 = (u32)counter;
    u32 c1 = (u32)(counter >> 32);
    u32 c2 = 0;
    u32 c3 = 0;
#pragma unroll
    for (int round = 0; round < 10; round++) {
        const u32 high0 = __umulhi(0xd2511f53u, c0);
        const u32 low0 = 0xd2511f53u * c0;
        const u32 high1 = __umulhi(0xcd9e8d57u, c2);
        const u32 low1 = 0xcd9e8d57u * c2;
        c0 = high1 ^ c1 ^ key0;
        c1 = low1;
        c2 = high0 ^ c3 ^ key1;
        c3 = low0;
        key0 += 0x9e3779b9u;
        key1 += 0xbb67ae85u;
    }
    return {{c0, c1, c2, c3}};
}

// The top 24 bits as a fraction: exact in float32.
__device__ __forceinline__ float uniform(u32 word) { return (float)(word >> 8) * 5.9604644775390625e-8f; }

extern "C" __global__ void __launch_bounds__(128) philox_u32(
    u32* __restrict__ out,  // [count]
    long long count, u64 seed, u64 offset) {
    const long long thread = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    const long long first = thread * 4;
    if (first >= count) {
        return;
    }
    const Words words = philox(seed, offset + thread);
    if (first + 4 <= count) {
        *(uint4*)(out + first) = {words.word[0], words.word[1], words.word[2], words.word[3]};
    } else {
#pragma unroll 1
        for (int i = 0; i < count - first; i++) {
            out[first + i] = words.word[i];
        }
    }
}

extern "C" __global__ void __launch_bounds__(128) philox_f32(
    float* __restrict__ out,  // [count]
    long long count, u64 seed, u64 offset) {
    const long long thread = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    const long long first = thread * 4;
    if (first >= count) {
        return;
    }
    const Words words = philox(seed, offset + thread);
    if (first + 4 <= count) {
        *(float4*)(out + first) = {uniform(words.word[0]), uniform(words.word[1]),
                                   uniform(words.word[2]), uniform(words.word[3])};
    } else {
#pragma unroll 1
        for (int i = 0; i < count - first; i++) {
            out[first + i] = uniform(words.word[i]);
        }
    }
}
