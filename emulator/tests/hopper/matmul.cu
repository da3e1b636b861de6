// C = A B of bf16 with float32 accumulators, a tile of 64 x 64 a block. Warp 4 loads slices of 64 k by tensor map, three
// ahead; warps 0 to 3 multiply them from where they lie; thread 0 stores the tile by tensor map. Full barriers tell the
// consumers that a slice has landed, empty barriers tell the producer that its place is free.
typedef unsigned int u32;
typedef unsigned long long u64;
typedef unsigned short u16;
struct __align__(64) TensorMap {
    u64 words[16];
};

constexpr int TILE = 64, STAGES = 3, BYTES = TILE * TILE * 2;

__device__ __forceinline__ u32 shared_address(const void* p) { return (u32)__cvta_generic_to_shared(p); }

__device__ __forceinline__ void init(u32 barrier, u32 count) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(count) : "memory");
}

__device__ __forceinline__ void expect(u32 barrier, u32 bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes) : "memory");
}

__device__ __forceinline__ void arrive(u32 barrier) {
    asm volatile("mbarrier.arrive.release.cta.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}

__device__ __forceinline__ void wait(u32 barrier, u32 parity) {
    asm volatile(
        "{\n.reg .pred done;\nAGAIN:\nmbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n@!done bra AGAIN;\n}" ::"r"(
            barrier),
        "r"(parity)
        : "memory");
}

__device__ __forceinline__ void load_tile(u32 to, const TensorMap* map, int x, int y, u32 barrier) {
    asm volatile(
        "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3}], [%4];" ::"r"(to),
        "l"(map), "r"(x), "r"(y), "r"(barrier)
        : "memory");
}

// Swizzle of 128 bytes; units of 8 rows (or, transposed, of 8 k) are 1024 bytes apart.
__device__ __forceinline__ u64 descriptor(u32 address) {
    return (u64)((address & 0x3FFFF) >> 4) | 1ull << 16 | (u64)(1024 >> 4) << 32 | 1ull << 62;
}

#define REGISTERS                                                                                                   \
    "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, %21, %22, %23, " \
    "%24, %25, %26, %27, %28, %29, %30, %31}"
#define FOUR(i) "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3])
#define ALL FOUR(0), FOUR(4), FOUR(8), FOUR(12), FOUR(16), FOUR(20), FOUR(24), FOUR(28)

#ifdef A_IN_REGISTERS
__device__ __forceinline__ void multiply(float (&d)[32], const u32 (&a)[4], u64 b, int keeps) {
    asm volatile("{\n.reg .pred keeps;\nsetp.ne.b32 keeps, %37, 0;\n"
                 "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 " REGISTERS
                 ", {%32, %33, %34, %35}, %36, keeps, 1, 1, " B_TRANSPOSED ";\n}"
                 : ALL
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(keeps));
}
#else
__device__ __forceinline__ void multiply(float (&d)[32], u64 a, u64 b, int keeps) {
    asm volatile("{\n.reg .pred keeps;\nsetp.ne.b32 keeps, %34, 0;\n"
                 "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 " REGISTERS
                 ", %32, %33, keeps, 1, 1, " A_TRANSPOSED ", " B_TRANSPOSED ";\n}"
                 : ALL
                 : "l"(a), "l"(b), "r"(keeps));
}
#endif

// A is [m, k] (transposed: [k, m]), B is [n, k] (transposed: [k, n]), C is [m, n]; rows of 64 elements make a box.
extern "C" __global__ void __launch_bounds__(160) matmul(const __grid_constant__ TensorMap a_map,
                                                         const __grid_constant__ TensorMap b_map,
                                                         const __grid_constant__ TensorMap c_map, long long k_total) {
    extern __shared__ __align__(1024) unsigned char memory[];
    __shared__ __align__(8) u64 barriers[2 * STAGES];
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const int m0 = blockIdx.y * TILE, n0 = blockIdx.x * TILE, slices = ((int)k_total + TILE - 1) / TILE;
    const u32 full = shared_address(barriers), empty = full + 8 * STAGES;
    const u32 a_tiles = shared_address(memory), b_tiles = a_tiles + STAGES * BYTES;
    float* c_tile = (float*)(memory + 2 * STAGES * BYTES);
    if (threadIdx.x == 0) {
        for (int stage = 0; stage < STAGES; stage++) {
            init(full + 8 * stage, 1);
            init(empty + 8 * stage, 4);
        }
        asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    }
    __syncthreads();  // the barriers are there
    if (warp == 4) {
        if (lane == 0) {
            for (int slice = 0; slice < slices; slice++) {
                const int stage = slice % STAGES, round = slice / STAGES;
                if (round > 0) wait(empty + 8 * stage, (round - 1) & 1);
                expect(full + 8 * stage, 2 * BYTES);
                const int k = slice * TILE;
                load_tile(a_tiles + stage * BYTES, &a_map, A_AT(k, m0), full + 8 * stage);
                load_tile(b_tiles + stage * BYTES, &b_map, B_AT(k, n0), full + 8 * stage);
            }
        }
        return;
    }
    float d[32];
    for (int i = 0; i < 32; i++) d[i] = 0.f;
    for (int slice = 0; slice < slices; slice++) {
        const int stage = slice % STAGES;
        wait(full + 8 * stage, slice / STAGES & 1);
        const u32 a_tile = a_tiles + stage * BYTES, b_tile = b_tiles + stage * BYTES;
#ifdef A_IN_REGISTERS
        u32 a[4][4];
        for (int step = 0; step < 4; step++)
            for (int i = 0; i < 4; i++) {
                const int row = 16 * warp + lane / 4 + 8 * (i % 2), chunk = 2 * step + i / 2;
                const u32 at = 128 * row + 16 * (chunk ^ row % 8) + 4 * (lane % 4);
                a[step][i] = *(const u32*)(memory + stage * BYTES + at);
            }
#endif
        asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
        for (int step = 0; step < 4; step++) {
            const u64 b = descriptor(b_tile + B_STEP * step);
#ifdef A_IN_REGISTERS
            multiply(d, a[step], b, slice + step);
#else
            multiply(d, descriptor(a_tile + A_STEP * step), b, slice + step);
#endif
        }
        asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
        asm volatile("wgmma.wait_group.sync.aligned 0;" ::: "memory");
        __syncwarp();  // all lanes have read their part of the slice
        if (lane == 0) arrive(empty + 8 * stage);
    }
    for (int i = 0; i < 32; i++) {
        const int row = 16 * warp + lane / 4 + 8 * (i / 2 % 2), column = 8 * (i / 4) + 2 * (lane % 4) + i % 2;
        c_tile[row * TILE + column] = d[i];
    }
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
    asm volatile("bar.sync 1, 128;" ::: "memory");  // the tile is whole
    if (threadIdx.x == 0) {
        asm volatile("cp.async.bulk.tensor.2d.global.shared::cta.bulk_group [%0, {%1, %2}], [%3];" ::"l"(&c_map), "r"(n0), "r"(m0),
                     "r"(shared_address(c_tile))
                     : "memory");
        asm volatile("cp.async.bulk.commit_group;" ::: "memory");
        asm volatile("cp.async.bulk.wait_group.read 0;" ::: "memory");
    }
}
