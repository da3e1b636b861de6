// Random numbers: element i is a function of Philox blocks whose counters are known from i.
//
// uniform, normal, words: a thread makes the four elements of one block and writes 16 bytes. truncated_normal: a thread
// makes one element, of candidates that belong to it, until one is inside the bound. Products and sums are rounded one
// by one, as on the CPU: the uniforms are the same bits.

#include "common/philox.cuh"

__device__ __forceinline__ void store_four(u32 *at, const u32 (&v)[4]) {
    *reinterpret_cast<uint4 *>(at) = make_uint4(v[0], v[1], v[2], v[3]);
}
__device__ __forceinline__ void store_four(float *at, const float (&v)[4]) { store_pack(at, v); }

// Elements 4 block .. 4 block + 3, as many as there are.
template <typename T> __device__ __forceinline__ void store_block(T *out, u64 n, u64 block, const T (&v)[4]) {
    const u64 start = block * 4;
    if (start + 4 <= n) return store_four(out + start, v);
#pragma unroll
    for (int k = 0; k < 4; k++)
        if (start + k < n) out[start + k] = v[k];
}

// Two independent normal values from two words (Box and Muller, 1958).
//
// The CPU takes the sine of a rounded angle, tau u. sincospif, which knows no large angles and needs no local memory,
// takes the sine of 2 pi u; the rounding, delta = float(tau u) - 2 pi u, is added to first order, so that both devices
// give the same values but for the last bits.
__device__ __forceinline__ void normal_pair(u32 a, u32 b, float &first, float &second) {
    const float radius = sqrtf(-2.0f * logf(1.0f - unit_uniform(a)));
    const float u = unit_uniform(b), tau = 6.283185307179586f;
    const float tau_minus_two_pi = 1.7484555e-7f;
    const float delta = tau_minus_two_pi * u - fmaf(tau, u, -__fmul_rn(tau, u));
    float sine, cosine;
    sincospif(2.0f * u, &sine, &cosine);
    first = radius * (cosine - delta * sine), second = radius * (sine + delta * cosine);
}

// The words themselves; out: [n]
KERNEL random_words(u32 *out, u64 n, Stream stream) {
    const u64 block = u64(blockIdx.x) * blockDim.x + threadIdx.x;
    const Words w = stream_block(stream, block);
    const u32 v[4] = {w.a, w.b, w.c, w.d};
    store_block(out, n, block, v);
}

// Uniform in [low, low + width); out: [n]
KERNEL random_uniform(float *out, u64 n, Stream stream, float low, float width) {
    const u64 block = u64(blockIdx.x) * blockDim.x + threadIdx.x;
    const Words w = stream_block(stream, block);
    const u32 words[4] = {w.a, w.b, w.c, w.d};
    float v[4];
#pragma unroll
    for (int k = 0; k < 4; k++) v[k] = __fadd_rn(low, __fmul_rn(width, unit_uniform(words[k])));
    store_block(out, n, block, v);
}

// Normal values in pairs; out: [n]
KERNEL random_normal(float *out, u64 n, Stream stream, float mean, float std) {
    const u64 block = u64(blockIdx.x) * blockDim.x + threadIdx.x;
    const Words w = stream_block(stream, block);
    float v[4];
    normal_pair(w.a, w.b, v[0], v[1]);
    normal_pair(w.c, w.d, v[2], v[3]);
#pragma unroll
    for (int k = 0; k < 4; k++) v[k] = __fadd_rn(mean, __fmul_rn(std, v[k]));
    store_block(out, n, block, v);
}

// A candidate in [-bound, bound), and whether it is taken.
__device__ __forceinline__ bool candidate(u32 u, u32 v, float bound, float &z) {
    z = __fmul_rn(__fadd_rn(2.0f * unit_uniform(u), -1.0f), bound);
    return unit_uniform(v) < expf(__fmul_rn(-0.5f * z, z));
}

// std z, z normal under the condition |z| <= bound; out: [n]
KERNEL random_truncated_normal(float *out, u64 n, Stream stream, float std, float bound) {
    const u64 i = u64(blockIdx.x) * blockDim.x + threadIdx.x;
    if (i >= n) return;
    const u32 purpose = stream.purpose;
    float value = 0.0f; // the mode, should 2^16 attempts fail
    for (u32 attempt = 0; attempt < 65536; attempt++) {
        stream.purpose = purpose | attempt << 16;
        const Words w = stream_block(stream, i);
        float z;
        if (bound >= 1.0f) {
            float v[4];
            normal_pair(w.a, w.b, v[0], v[1]);
            normal_pair(w.c, w.d, v[2], v[3]);
            bool found = false;
#pragma unroll
            for (int k = 3; k >= 0; k--) {
                const bool inside = fabsf(v[k]) <= bound;
                found |= inside;
                z = inside ? v[k] : z;
            }
            if (!found) continue;
        } else if (!candidate(w.a, w.b, bound, z) && !candidate(w.c, w.d, bound, z)) {
            continue;
        }
        value = z;
        break;
    }
    out[i] = std * value;
}
