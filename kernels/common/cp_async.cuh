// Copies from global to shared memory that go on while the threads compute (cp.async, sm_80).
//
// A thread's copies since its last copy_commit() form a group; copy_wait<N>() returns when at most its N latest groups
// are still on the way. A barrier must follow before other threads read what arrived. Groups may be empty: committing
// one in every step keeps the count of groups the same to the end.
#pragma once

#include "common/element.cuh"

// 16 bytes to shared address `to` (shared_address), of which the first `bytes` come from `from` and the others are
// zero. Both are aligned to 16 bytes; with 0 bytes nothing is read, and `from` is any aligned address. The first-level
// cache is left out.
__device__ __forceinline__ void copy_async(u32 to, const void *from, u32 bytes) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(__cvta_generic_to_global(from)),
                 "r"(bytes)
                 : "memory");
}

// The same where `wanted`; else nothing.
__device__ __forceinline__ void copy_async_if(bool wanted, u32 to, const void *from, u32 bytes) {
    asm volatile("{\n"
                 "  .reg .pred wanted;\n"
                 "  setp.ne.b32 wanted, %3, 0;\n"
                 "  @wanted cp.async.cg.shared.global [%0], [%1], 16, %2;\n"
                 "}" ::"r"(to),
                 "l"(__cvta_generic_to_global(from)), "r"(bytes), "r"(u32(wanted))
                 : "memory");
}

// 16 bytes, all of them from `from`, where `wanted`; else nothing.
__device__ __forceinline__ void copy_async_if(bool wanted, u32 to, const void *from) {
    asm volatile("{\n"
                 "  .reg .pred wanted;\n"
                 "  setp.ne.b32 wanted, %2, 0;\n"
                 "  @wanted cp.async.cg.shared.global [%0], [%1], 16;\n"
                 "}" ::"r"(to),
                 "l"(__cvta_generic_to_global(from)), "r"(u32(wanted))
                 : "memory");
}

// 16 bytes, all of them from `from`.
__device__ __forceinline__ void copy_async(u32 to, const void *from) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(to), "l"(__cvta_generic_to_global(from)) : "memory");
}

// Closes the group of this thread's copies.
__device__ __forceinline__ void copy_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }

// Waits until at most the LEFT latest groups of this thread are on the way.
template <int LEFT> __device__ __forceinline__ void copy_wait() {
    asm volatile("cp.async.wait_group %0;" ::"n"(LEFT) : "memory");
}
