// The position of each row's maximum: the first on ties, NaN above everything.
//
// `threads` threads (a power of two, up to a block) read one row once, each its own elements in order. What they found
// is packed as (order of the value, complement of the position) in 64 bits, whose maximum is the answer whatever the
// order of comparisons.

#include "common/element.cuh"
#include "common/reduce.cuh"

constexpr int WARPS = 8; // of a block at most

// An integer that orders floats as the CPU does: -0 equal to 0, every NaN above infinity.
__device__ __forceinline__ i32 order(float v) {
    const i32 bits = __float_as_int(v + 0.0f);
    return v != v ? 0x7fffffff : bits ^ i32(u32(bits >> 31) >> 1);
}

// out[row] = argmax of x[row, ..]; x: [rows, length], out: [rows], length < 2^31
KERNEL ENTRY(reduce_argmax)(const element *x, i32 *out, u64 rows, u32 length, u32 log_threads, u32 vector) {
    __shared__ u64 part[WARPS];

    const u32 threads = 1u << log_threads, thread = threadIdx.x & (threads - 1);
    const u64 row = (u64(blockIdx.x) * blockDim.x + threadIdx.x) >> log_threads;
    u64 best = 0;
    if (row < rows) {
        const element *at = x + row * length;
        i32 largest = -0x7fffffff - 1;
        u32 position = 0xffffffffu; // none
        const u32 packs = vector ? length / PACK : 0;
        for (u32 i = thread; i < packs; i += threads) {
            float v[PACK];
            load_pack(at + u64(i) * PACK, v);
#pragma unroll
            for (int j = 0; j < PACK; j++) {
                const i32 key = order(v[j]);
                if (key > largest) largest = key, position = i * PACK + j;
            }
        }
        for (u32 i = packs * PACK + thread; i < length; i += threads) {
            const i32 key = order(to_float(at[i]));
            if (key > largest) largest = key, position = i;
        }
        // Larger is later in the order of u32 once the sign is turned; 0 is below every value of a row.
        best = u64(u32(largest) ^ 0x80000000u) << 32 | u32(~position);
    }
    for (u32 distance = threads < 32 ? threads / 2 : 16; distance > 0; distance /= 2) {
        const u64 other = __shfl_xor_sync(ALL_LANES, best, distance);
        best = other > best ? other : best;
    }
    if (threads > 32) {
        // A group of more than a warp is the whole block.
        if (lane_id() == 0) part[warp_id()] = best;
        __syncthreads(); // part is written
        for (u32 w = 0; w < blockDim.x / 32; w++) best = part[w] > best ? part[w] : best;
    }
    if (row < rows && thread == 0) out[row] = i32(~u32(best));
}
