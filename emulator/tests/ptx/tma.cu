// TMA, mbarrier and wgmma: wait loops in scopes, clusters, dynamic shared memory. Not a sensible kernel.
typedef unsigned int u32;
typedef unsigned long long u64;
struct alignas(64) Map { u64 w[16]; };
extern "C" __global__ void __cluster_dims__(2, 1, 1) __launch_bounds__(128, 1) tma(const __grid_constant__ Map map, float* out) {
    extern __shared__ __align__(1024) unsigned char tile[];
    __shared__ __align__(8) u64 bar;
    u32 b = (u32)__cvta_generic_to_shared(&bar), t = (u32)__cvta_generic_to_shared(tile);
    if (threadIdx.x == 0) {
        asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(b), "r"(1));
        asm volatile("fence.mbarrier_init.release.cluster;");
        asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
    }
    __syncthreads();
    if (threadIdx.x == 0) {
        asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(b), "r"(16384) : "memory");
        asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3}], [%4];" ::"r"(t), "l"(&map), "r"(0), "r"((int)blockIdx.x * 64), "r"(b) : "memory");
    }
    for (u32 phase = 0; phase < 2; phase++) {
        asm volatile("{\n\t.reg .pred P1;\nLAB_WAIT:\n\tmbarrier.try_wait.parity.shared::cta.b64 P1, [%0], %1, %2;\n\t@P1 bra DONE;\n\tbra LAB_WAIT;\nDONE:\n\t}" ::"r"(b), "r"(phase), "r"(0x989680) : "memory");
        asm volatile("{\n\t.reg .pred P1;\n\t.reg .b32 t<3>;\nLAB_WAIT:\n\tmbarrier.try_wait.parity.shared::cta.b64 P1, [%0], %1;\n\tmov.b32 t0, 1;\n\t@!P1 bra.uni LAB_WAIT;\n\t}" ::"r"(b), "r"(phase) : "memory");
    }
    u64 desc = (t >> 4) | (1ull << 62);
    float d[4] = {0, 0, 0, 0};
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
    asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %6, 0;\nwgmma.mma_async.sync.aligned.m64n8k16.f32.bf16.bf16 {%0, %1, %2, %3}, %4, %5, p, 1, 1, 0, 0;\n}" : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]) : "l"(desc), "l"(desc), "r"(1));
    asm volatile("wgmma.commit_group.sync.aligned;\n\twgmma.wait_group.sync.aligned 0;" ::: "memory");
    asm volatile("{\n\t.reg .b32 remote;\n\tmapa.shared::cluster.u32 remote, %0, %1;\n\tmbarrier.arrive.release.cluster.shared::cluster.b64 _, [remote];\n\t}" ::"r"(b), "r"(1));
    asm volatile("barrier.cluster.arrive.release.aligned;\n\tbarrier.cluster.wait.acquire.aligned;" ::: "memory");
    for (int i = 0; i < 4; i++) out[threadIdx.x * 4 + i] = d[i] + tile[threadIdx.x];
}
