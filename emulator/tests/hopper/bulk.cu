// Bulk copies by themselves: a box through shared memory, from a tensor of 1 to 5 dimensions to another; bytes one after
// another through shared memory.
typedef unsigned int u32;
typedef unsigned long long u64;
struct __align__(64) TensorMap {
    u64 words[16];
};

__device__ __forceinline__ u32 shared_address(const void* p) { return (u32)__cvta_generic_to_shared(p); }

#if RANK == 1
#define COORDINATES "{%2}"
#define BAR "%3"
#define WHERE "r"(at[0])
#elif RANK == 2
#define COORDINATES "{%2, %3}"
#define BAR "%4"
#define WHERE "r"(at[0]), "r"(at[1])
#elif RANK == 3
#define COORDINATES "{%2, %3, %4}"
#define BAR "%5"
#define WHERE "r"(at[0]), "r"(at[1]), "r"(at[2])
#elif RANK == 4
#define COORDINATES "{%2, %3, %4, %5}"
#define BAR "%6"
#define WHERE "r"(at[0]), "r"(at[1]), "r"(at[2]), "r"(at[3])
#else
#define COORDINATES "{%2, %3, %4, %5, %6}"
#define BAR "%7"
#define WHERE "r"(at[0]), "r"(at[1]), "r"(at[2]), "r"(at[3]), "r"(at[4])
#endif
#define TEXT(x) #x
#define DIMENSIONS(x) TEXT(x) "d"

#define WAIT(barrier, parity)                                                                              \
    asm volatile("{\n.reg .pred p;\nAGAIN:\nmbarrier.try_wait.parity.shared::cta.b64 p, [%0], %1;\n@!p bra AGAIN;\n}" \
                 ::"r"(barrier), "r"(parity) : "memory")

__device__ __forceinline__ void start(u32 bar, u32 bytes) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], 1;" ::"r"(bar) : "memory");
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(bar), "r"(bytes) : "memory");
}

// The box at `at` of one tensor goes to the same place of the other, and as it lies in shared memory to `image`.
extern "C" __global__ void box(const __grid_constant__ TensorMap from, const __grid_constant__ TensorMap to, const int* at,
                               long long bytes, u32* image) {
    __shared__ __align__(1024) u32 tile[2048];
    __shared__ __align__(8) u64 barrier;
    const u32 bar = shared_address(&barrier), place = shared_address(tile);
    if (threadIdx.x == 0) {
        start(bar, (u32)bytes);
        asm volatile("prefetch.tensormap [%0];" ::"l"(&to) : "memory");
        asm volatile("cp.async.bulk.tensor." DIMENSIONS(RANK) ".shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, "
                     COORDINATES "], [" BAR "];" ::"r"(place), "l"(&from), WHERE, "r"(bar)
                     : "memory");
    }
    __syncthreads();
    WAIT(bar, 0u);
    for (int i = threadIdx.x; i < bytes / 4; i += blockDim.x) image[i] = tile[i];
    if (threadIdx.x == 0) {
        asm volatile("cp.async.bulk.tensor." DIMENSIONS(RANK) ".global.shared::cta.tile.bulk_group [%1, " COORDINATES
                     "], [%0];" ::"r"(place), "l"(&to), WHERE
                     : "memory");
        asm volatile("cp.async.bulk.commit_group;" ::: "memory");
        asm volatile("cp.async.bulk.wait_group 0;" ::: "memory");
    }
}

// The bytes of `from`, inverted, to `to`.
extern "C" __global__ void invert(const u32* from, u32* to, long long bytes) {
    __shared__ __align__(128) u32 tile[256];
    __shared__ __align__(8) u64 barrier;
    const u32 bar = shared_address(&barrier), place = shared_address(tile);
    if (threadIdx.x == 0) {
        start(bar, (u32)bytes);
        asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(place), "l"(from),
                     "r"((u32)bytes), "r"(bar)
                     : "memory");
    }
    __syncthreads();
    WAIT(bar, 0u);
    for (int i = threadIdx.x; i < bytes / 4; i += blockDim.x) tile[i] = ~tile[i];
    asm volatile("fence.proxy.async;" ::: "memory");
    __syncthreads();
    if (threadIdx.x == 0) {
        asm volatile("cp.async.bulk.global.shared::cta.bulk_group [%0], [%1], %2;" ::"l"(to), "r"(place), "r"((u32)bytes) : "memory");
        asm volatile("cp.async.bulk.commit_group;" ::: "memory");
        asm volatile("cp.async.bulk.wait_group.read 0;" ::: "memory");
    }
}
