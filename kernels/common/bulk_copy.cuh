// From registers to shared memory by matrices, and from shared to global memory while the threads do something else (stmatrix and
// cp.async.bulk, sm_90).
#pragma once

#include "common/element.cuh"

// Four 8 x 8 matrices of 16-bit elements, as load_matrices() of common/mma.cuh has them, the other way.
__device__ __forceinline__ void store_matrices(u32 row, u32 r0, u32 r1, u32 r2, u32 r3) {
    asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(row), "r"(r0), "r"(r1), "r"(r2), "r"(r3)
                 : "memory");
}

// `bytes` from shared address `from` to `to`, all multiples of 16. They must be there for the asynchronous proxy
// (show_to_products() and a barrier).
__device__ __forceinline__ void copy_out(void *to, u32 from, u32 bytes) {
    asm volatile("cp.async.bulk.global.shared::cta.bulk_group [%0], [%1], %2;" ::"l"(__cvta_generic_to_global(to)), "r"(from),
                 "r"(bytes)
                 : "memory");
}

// Closes the group of this thread's copies.
__device__ __forceinline__ void copy_out_commit() { asm volatile("cp.async.bulk.commit_group;" ::: "memory"); }

// Waits until what this thread copies has been read: behind a barrier it may be overwritten.
__device__ __forceinline__ void copy_out_wait() { asm volatile("cp.async.bulk.wait_group.read 0;" ::: "memory"); }
