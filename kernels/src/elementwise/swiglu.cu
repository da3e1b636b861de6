// The gated unit silu(a) b, where a is the first half of a row and b the second, and its gradient.
//
// Each thread makes one pack of 16 bytes of the result, or of the gradients of both halves at the same place, from the
// packs that it needs, each read once; where packs of half a row are not whole or not at multiples of 16 bytes, as many
// elements one by one. Threads do not wait for each other. Arithmetic is in float32; a bf16 result is rounded once.

#include "common/divisor.cuh"
#include "common/element.cuh"

// n / d, with a 64-bit division only where n needs it.
__device__ __forceinline__ u64 over(u64 n, const Divisor &d) { return n >> 31 ? n / d.divisor : quotient(n, d); }

__device__ __forceinline__ float sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }

// Where element i of the result has its a in x; its b is `half` elements behind.
__device__ __forceinline__ u64 gate(u64 i, const Divisor &half) { return i + over(i, half) * half.divisor; }

// y[r, j] = silu(x[r, j]) x[r, half + j]; x: [n / half, 2 half], y: [n / half, half]
KERNEL ENTRY(elementwise_swiglu)(const element *x, element *y, u64 n, Divisor half, u32 vector) {
    const u64 start = (u64(blockIdx.x) * blockDim.x + threadIdx.x) * PACK;
    if (start >= n) return;
    if (vector) {
        const u64 at = gate(start, half);
        float a[PACK], b[PACK];
        load_pack(x + at, a);
        load_pack(x + at + half.divisor, b);
#pragma unroll
        for (int i = 0; i < PACK; i++) a[i] *= sigmoid(a[i]) * b[i];
        store_pack(y + start, a);
        return;
    }
    for (u64 i = start; i < n && i < start + PACK; i++) {
        const u64 at = gate(i, half);
        const float a = to_float(x[at]);
        from_float(a * (sigmoid(a) * to_float(x[at + half.divisor])), y[i]);
    }
}

// Of a, b and the upstream gradient g: da and db, in place of a and b.
__device__ __forceinline__ void gradients(float &a, float &b, float g) {
    const float s = sigmoid(a), da = g * b * (s * (1.0f + a * (1.0f - s)));
    b = g * (a * s);
    a = da;
}

// dx[r, j] = dy[r, j] b silu'(a), dx[r, half + j] = dy[r, j] silu(a); dy: [n / half, half], x, dx: [n / half, 2 half]
KERNEL ENTRY(elementwise_swiglu_bwd)(const element *dy, const element *x, element *dx, u64 n, Divisor half,
                                     u32 vector) {
    const u64 start = (u64(blockIdx.x) * blockDim.x + threadIdx.x) * PACK;
    if (start >= n) return;
    if (vector) {
        const u64 at = gate(start, half);
        float a[PACK], b[PACK], g[PACK];
        load_pack(x + at, a);
        load_pack(x + at + half.divisor, b);
        load_pack(dy + start, g);
#pragma unroll
        for (int i = 0; i < PACK; i++) gradients(a[i], b[i], g[i]);
        store_pack(dx + at, a);
        store_pack(dx + at + half.divisor, b);
        return;
    }
    for (u64 i = start; i < n && i < start + PACK; i++) {
        const u64 at = gate(i, half);
        float a = to_float(x[at]), b = to_float(x[at + half.divisor]);
        gradients(a, b, to_float(dy[i]));
        from_float(a, dx[at]);
        from_float(b, dx[at + half.divisor]);
    }
}
