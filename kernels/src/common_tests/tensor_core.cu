// One warp through every wrapper of common/mma.cuh and common/cp_async.cuh, for tests.

#include "common/cp_async.cuh"
#include "common/mma.cuh"

// The number of shared memory's pack (16 bytes) that a lane's row of an 8 x 8 matrix is, where the four matrices of a
// load are those of a 16 x 16 tile of two packs a row, down first or along the row first.
__device__ __forceinline__ u32 pack_of_lane(bool down_first) {
    const u32 matrix = threadIdx.x / 8;
    const u32 lower = down_first ? matrix & 1 : matrix >> 1, right = down_first ? matrix >> 1 : matrix & 1;
    return swizzled<2>(8 * lower + threadIdx.x % 8, right);
}

// a: [16, 16], or its transpose; b: [16, 16], or its transpose; d: [16, 16].
KERNEL common_mma_bf16(const bf16 *a, const bf16 *b, float *d, u32 a_transposed, u32 b_transposed) {
    __shared__ __align__(128) uint4 tiles[2][32];
    const u32 lane = threadIdx.x;
    copy_async(shared_address(&tiles[0][swizzled<2>(lane / 2, lane % 2)]), a + 8 * lane);
    copy_async(shared_address(&tiles[1][swizzled<2>(lane / 2, lane % 2)]), b + 8 * lane);
    copy_commit();
    copy_wait<0>();
    __syncwarp();
    // A's matrices are wanted down first. Transposed they lie along the rows: [k, m].
    u32 x[4], y[4];
    if (a_transposed)
        load_matrices<true>(shared_address(&tiles[0][pack_of_lane(false)]), x);
    else
        load_matrices<false>(shared_address(&tiles[0][pack_of_lane(true)]), x);
    // B's are wanted along k first: y[0], y[1] for columns 0 to 7, y[2], y[3] for the others. b0 of a lane holds two
    // rows k of one column: [n, k] as it lies, [k, n] transposed.
    if (b_transposed)
        load_matrices<false>(shared_address(&tiles[1][pack_of_lane(false)]), y);
    else
        load_matrices<true>(shared_address(&tiles[1][pack_of_lane(true)]), y);
    for (int half = 0; half < 2; half++) {
        float sums[4] = {};
        mma_bf16(sums, x, y[2 * half], y[2 * half + 1]);
        float *to = d + lane / 4 * 16 + 8 * half + 2 * (lane % 4);
        to[0] = sums[0], to[1] = sums[1], to[8 * 16] = sums[2], to[8 * 16 + 1] = sums[3];
    }
}

// a: [16, 8]; b: [8, 8]; d: [16, 8].
KERNEL common_mma_tf32(const float *a, const float *b, float *d) {
    const u32 g = threadIdx.x / 4, t = threadIdx.x % 4;
    const u32 x[4] = {to_tf32(a[g * 8 + t]), to_tf32(a[(g + 8) * 8 + t]), to_tf32(a[g * 8 + t + 4]),
                      to_tf32(a[(g + 8) * 8 + t + 4])};
    float sums[4] = {};
    mma_tf32(sums, x, to_tf32(b[t * 8 + g]), to_tf32(b[(t + 4) * 8 + g]));
    float *to = d + g * 8 + 2 * t;
    to[0] = sums[0], to[1] = sums[1], to[8 * 8] = sums[2], to[8 * 8 + 1] = sums[3];
}

// out: [17, 4] words, of which row i has i bytes of from: [4] words, and zeros behind them.
KERNEL common_copy_part(const u32 *from, u32 *out) {
    __shared__ __align__(16) uint4 packs[17];
    if (threadIdx.x < 17) {
        const u32 to = shared_address(&packs[threadIdx.x]);
        if (threadIdx.x % 2)
            copy_async(to, from, threadIdx.x);
        else
            copy_async_if(true, to, from, threadIdx.x);
        copy_async_if(false, to, from, 16);
        copy_commit();
        copy_commit();
        copy_wait<1>();
        reinterpret_cast<uint4 *>(out)[threadIdx.x] = packs[threadIdx.x];
    }
}

template <int PACKS> __device__ void places(u32 *out) {
    for (u32 i = threadIdx.x; i < 32 * PACKS; i += 32) out[i] = swizzled<PACKS>(i / PACKS, i % PACKS);
}

// out: for 2, 4, 8 and 16 packs a row the places of 32 rows.
KERNEL common_swizzled(u32 *out) {
    places<2>(out);
    places<4>(out + 64);
    places<8>(out + 192);
    places<16>(out + 448);
}
