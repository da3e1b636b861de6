// mma GEMM: inline assembly with cp.async, ldmatrix, and labels in scopes that repeat.
typedef unsigned int u32;
typedef unsigned short u16;
__device__ __forceinline__ u32 smem(const void* p) { return (u32)__cvta_generic_to_shared(p); }
__device__ __forceinline__ void copy(u32 to, const void* from, int bytes) {
    asm volatile("{\n\t.reg .pred p;\n\tsetp.ne.b32 p, %2, 0;\n\t@p cp.async.cg.shared.global [%0], [%1], 16, %2;\n\t@!p bra W;\n\tbra.uni X;\nW:\n\tst.shared.v4.u32 [%0], {0, 0, 0, 0};\nX:\n\t}" ::"r"(to), "l"(from), "r"(bytes) : "memory");
}
extern "C" __global__ void gemm(const u16* __restrict__ a, const u16* __restrict__ b, float* c, int M, int N, int K) {
    __shared__ __align__(16) u16 at[2][16 * 16], bt[2][8 * 16];
    extern __shared__ __align__(128) unsigned char extra[];
    int lane = threadIdx.x;
    float acc[4] = {0, 0, 0, 0};
    #pragma unroll 1
    for (int k = 0; k < K; k += 16) {
        int s = (k / 16) & 1;
        copy(smem(&at[s][lane * 8]), a + (blockIdx.y * 16 + lane / 2) * K + k + lane % 2 * 8, k < K ? 16 : 0);
        if (lane < 16) copy(smem(&bt[s][lane * 8]), b + (blockIdx.x * 8 + lane / 2) * K + k + lane % 2 * 8, 16);
        asm volatile("cp.async.commit_group;" ::: "memory");
        asm volatile("cp.async.wait_group %0;" ::"n"(0) : "memory");
        __syncthreads();
        u32 fa[4], fb[2];
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];" : "=r"(fa[0]), "=r"(fa[1]), "=r"(fa[2]), "=r"(fa[3]) : "r"(smem(&at[s][lane % 16 * 16 + lane / 16 * 8])));
        asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0, %1}, [%2];" : "=r"(fb[0]), "=r"(fb[1]) : "r"(smem(&bt[s][lane % 8 * 16 + lane / 8 % 2 * 8])));
        asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                     : "+f"(acc[0]), "+f"(acc[1]), "+f"(acc[2]), "+f"(acc[3]) : "r"(fa[0]), "r"(fa[1]), "r"(fa[2]), "r"(fa[3]), "r"(fb[0]), "r"(fb[1]));
    }
    float* out = c + (blockIdx.y * 16 + lane / 4) * N + blockIdx.x * 8 + lane % 4 * 2;
    *(float2*)out = make_float2(acc[0] + extra[lane], acc[1]);
    *(float2*)(out + 8 * N) = make_float2(acc[2], acc[3]);
}
