// Boxes of a tensor that one thread has copied to shared memory, and barriers that say when they are there (cp.async.bulk.tensor and
// mbarrier, sm_90).
#pragma once

#include "common/element.cuh"

// A tensor and the box of it that is copied, as the driver encodes them: engine/src/cuda/tensor_map.rs.
struct alignas(64) TensorMap {
    u64 words[16];
};

// A barrier of 8 bytes in shared memory at `at`. A phase of it is over when `count` threads have arrived, and the bytes that
// are expected in it have been copied.
__device__ __forceinline__ void barrier_init(u32 at, u32 count) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(at), "r"(count) : "memory");
}

// Behind it, and a barrier of the block, everybody may use the barriers that this thread has made.
__device__ __forceinline__ void barriers_made() { asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory"); }

// Arrives, and says how many bytes are copied in this phase.
__device__ __forceinline__ void barrier_expect(u32 at, u32 bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(at), "r"(bytes) : "memory");
}

__device__ __forceinline__ void barrier_arrive(u32 at) {
    asm volatile("mbarrier.arrive.release.cta.shared::cta.b64 _, [%0];" ::"r"(at) : "memory");
}

// Waits for the end of the phase of this parity: 0 for the first.
__device__ __forceinline__ void barrier_wait(u32 at, u32 parity) {
    u32 is_over;
    do {
        asm volatile("{\n"
                     "  .reg .pred over;\n"
                     "  mbarrier.try_wait.parity.shared::cta.b64 over, [%1], %2;\n"
                     "  selp.u32 %0, 1, 0, over;\n"
                     "}"
                     : "=r"(is_over)
                     : "r"(at), "r"(parity)
                     : "memory");
    } while (!is_over);
}

// Copies the box at x, y, z of the tensor, innermost first, to shared address `to`, and tells `barrier` of its bytes. What is
// outside of the tensor is zero, and counts.
__device__ __forceinline__ void copy_box(u32 to, const TensorMap &map, i32 x, i32 y, i32 z, u32 barrier) {
    asm volatile("cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3, %4}], [%5];" ::"r"(
                     to),
                 "l"(&map), "r"(x), "r"(y), "r"(z), "r"(barrier)
                 : "memory");
}
