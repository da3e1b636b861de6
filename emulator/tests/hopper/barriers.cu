// mbarriers by themselves: counts, phases, states, bytes.
typedef unsigned int u32;
typedef unsigned long long u64;

__device__ __forceinline__ u32 shared_address(const void* p) { return (u32)__cvta_generic_to_shared(p); }

__device__ __forceinline__ u32 test(u32 barrier, u32 parity) {
    u32 over;
    asm volatile("{\n.reg .pred p;\nmbarrier.test_wait.parity.shared::cta.b64 p, [%1], %2;\nselp.u32 %0, 1, 0, p;\n}"
                 : "=r"(over)
                 : "r"(barrier), "r"(parity)
                 : "memory");
    return over;
}

__device__ __forceinline__ u32 test_state(u32 barrier, u64 state) {
    u32 over;
    asm volatile("{\n.reg .pred p;\nmbarrier.test_wait.shared.b64 p, [%1], %2;\nselp.u32 %0, 1, 0, p;\n}"
                 : "=r"(over)
                 : "r"(barrier), "l"(state)
                 : "memory");
    return over;
}

__device__ __forceinline__ u64 arrive(u32 barrier, u32 count) {
    u64 state;
    asm volatile("mbarrier.arrive.shared.b64 %0, [%1], %2;" : "=l"(state) : "r"(barrier), "r"(count) : "memory");
    return state;
}

#define WAIT(barrier, parity)                                                                              \
    asm volatile("{\n.reg .pred p;\nAGAIN:\nmbarrier.try_wait.parity.shared::cta.b64 p, [%0], %1;\n@!p bra AGAIN;\n}" \
                 ::"r"(barrier), "r"(parity) : "memory")

// One thread goes through the phases and writes down what it sees.
extern "C" __global__ void phases(u32* out) {
    __shared__ __align__(8) u64 barrier;
    const u32 bar = shared_address(&barrier);
    asm volatile("mbarrier.init.shared.b64 [%0], 3;" ::"r"(bar) : "memory");
    out[0] = test(bar, 1);  // the phase before the first one counts as complete
    out[1] = test(bar, 0);
    const u64 first = arrive(bar, 1);
    out[2] = test_state(bar, first);
    arrive(bar, 2);
    out[3] = test(bar, 0);
    out[4] = test(bar, 1);
    out[5] = test_state(bar, first);
    // Bytes that came before they were expected, and a thread that arrives for the last time.
    asm volatile("mbarrier.complete_tx.relaxed.cta.shared::cta.b64 [%0], 64;" ::"r"(bar) : "memory");
    asm volatile("mbarrier.arrive_drop.shared.b64 _, [%0];" ::"r"(bar) : "memory");
    arrive(bar, 2);
    out[6] = test(bar, 1);  // 64 bytes too many
    asm volatile("mbarrier.expect_tx.relaxed.cta.shared::cta.b64 [%0], 64;" ::"r"(bar) : "memory");
    out[7] = test(bar, 1);
    arrive(bar, 2);  // two are left
    out[8] = test(bar, 0);
    asm volatile("mbarrier.inval.shared.b64 [%0];" ::"r"(bar) : "memory");
    asm volatile("mbarrier.init.shared.b64 [%0], 1;" ::"r"(bar) : "memory");
    out[9] = test(bar, 0);
}

// Warps hand a number on, one after the other, each through its own barrier.
extern "C" __global__ void chain(u32* out) {
    __shared__ __align__(8) u64 barriers[4];
    __shared__ u32 number[4];
    const u32 warp = threadIdx.x / 32, lane = threadIdx.x % 32, bar = shared_address(barriers);
    if (threadIdx.x < 4) asm volatile("mbarrier.init.shared::cta.b64 [%0], 32;" ::"r"(bar + 8 * threadIdx.x) : "memory");
    __syncthreads();
    u32 sum = lane == 0 ? 1 : 0;
    if (warp > 0) {
        WAIT(bar + 8 * (warp - 1), 0u);
        sum = number[warp - 1] + warp;
    }
    if (lane == 0) number[warp] = sum;
    arrive(bar + 8 * warp, 1);
    if (warp == 3) {
        WAIT(bar + 24, 0u);
        out[lane] = number[3];
    }
}
