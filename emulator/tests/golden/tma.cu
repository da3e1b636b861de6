// One tile by tensor map into shared memory, which is then written out as it lies there.
typedef unsigned int u32;
typedef unsigned long long u64;
struct __align__(64) TensorMap {
    u64 words[16];
};

__device__ __forceinline__ u32 shared_address(const void* p) { return (u32)__cvta_generic_to_shared(p); }

extern "C" __global__ void tile(const __grid_constant__ TensorMap map, long long x, long long y, long long bytes, u32* out) {
    __shared__ __align__(1024) u32 box[512];
    __shared__ __align__(8) u64 barrier;
    const u32 bar = shared_address(&barrier);
    for (int i = threadIdx.x; i < bytes / 4; i += blockDim.x) box[i] = 0xdeadbeefu;
    if (threadIdx.x == 0) {
        asm volatile("mbarrier.init.shared::cta.b64 [%0], 1;" ::"r"(bar));
        asm volatile("fence.mbarrier_init.release.cluster;");
        asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
    }
    __syncthreads();
    if (threadIdx.x == 0) {
        asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(bar), "r"((u32)bytes) : "memory");
        asm volatile(
            "cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3}], [%4];" ::"r"(
                shared_address(box)),
            "l"(&map), "r"((int)x), "r"((int)y), "r"(bar)
            : "memory");
    }
    asm volatile("{ .reg .pred p; W: mbarrier.try_wait.parity.shared::cta.b64 p, [%0], 0; @p bra D; bra W; D: }" ::"r"(bar)
                 : "memory");
    for (int i = threadIdx.x; i < bytes / 4; i += blockDim.x) out[i] = box[i];
}
