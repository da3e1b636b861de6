// Products of a warpgroup, four warps whose first has a number that 4 divides, on Hopper's tensor cores (wgmma, sm_90a): both
// operands lie in shared memory, and the products go on while the warps do something else.
//
// A warp of the four has 16 of the 64 rows. Its fragment of the result is as that of mma.m16n8k16 (common/mma.cuh), one for
// every 8 columns.
//
// Operands lie there as common/mma.cuh's swizzled<8> has them: rows of 128 bytes, eight of which make a unit that begins at a
// multiple of 1024 bytes ("Matrix Descriptor" and "Strides" in the PTX manual, swizzle of 128 bytes).
#pragma once

#include "common/element.cuh"

// Where an operand's first 16 steps are, from shared address `at` on. Along k a row of 128 bytes has 64 steps of a row, and units
// of eight rows follow each other. Along the rows it has a step of 64 rows; units of eight steps follow each other, and
// `columns` bytes lead to the next 64 rows.
template <bool ALONG_K> __device__ __forceinline__ u64 matrix_at(u32 at, u32 columns) {
    constexpr u64 UNIT = 1024, SWIZZLE_128 = 1ull << 62;
    const u64 leading = ALONG_K ? 1 : columns >> 4; // not used along k
    return u64(at >> 4) | leading << 16 | (UNIT >> 4) << 32 | SWIZZLE_128;
}

// Sixteen steps further on.
template <bool ALONG_K> __device__ __forceinline__ u64 next_steps(u64 matrix, int count) {
    constexpr u32 BYTES = ALONG_K ? 32 : 2048;
    return matrix + (BYTES >> 4) * count;
}

// Eight columns of 16 steps, at `at` without any swizzle: two blocks of 128 bytes, of eight steps each.
__device__ __forceinline__ u64 eight_columns_at(u32 at) { return u64(at >> 4) | (128ull >> 4) << 16 | (128ull >> 4) << 32; }

// Before the first product, and before one whose sums other instructions have written.
__device__ __forceinline__ void products_begin() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }

// Closes the group of this warp's products.
__device__ __forceinline__ void products_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }

// Waits until at most the LEFT latest groups of this warp are on the way: the sums of the others may be used, and their operands
// overwritten once all four warps have waited.
template <int LEFT> __device__ __forceinline__ void products_wait() {
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(LEFT) : "memory");
}

// What this thread, or its copies that it has waited for, wrote to shared memory is there for products behind the next barrier.
__device__ __forceinline__ void show_to_products() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

#define SUMS_OF(i) "+f"(d[i][0]), "+f"(d[i][1]), "+f"(d[i][2]), "+f"(d[i][3])

// d += A B: 64 rows, 256 columns, 16 steps.
template <bool A_ALONG_K, bool B_ALONG_K>
__device__ __forceinline__ void multiply_steps(float (&d)[32][4], u64 a, u64 b) {
    asm volatile(
        "wgmma.mma_async.sync.aligned.m64n256k16.f32.bf16.bf16 {"
        "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
        "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
        "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
        "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63, "
        "%64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, "
        "%80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95, "
        "%96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111, "
        "%112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, %127}, "
        "%128, %129, 1, 1, 1, %130, %131;"
        : SUMS_OF(0), SUMS_OF(1), SUMS_OF(2), SUMS_OF(3), SUMS_OF(4), SUMS_OF(5), SUMS_OF(6), SUMS_OF(7),
          SUMS_OF(8), SUMS_OF(9), SUMS_OF(10), SUMS_OF(11), SUMS_OF(12), SUMS_OF(13), SUMS_OF(14), SUMS_OF(15),
          SUMS_OF(16), SUMS_OF(17), SUMS_OF(18), SUMS_OF(19), SUMS_OF(20), SUMS_OF(21), SUMS_OF(22), SUMS_OF(23),
          SUMS_OF(24), SUMS_OF(25), SUMS_OF(26), SUMS_OF(27), SUMS_OF(28), SUMS_OF(29), SUMS_OF(30), SUMS_OF(31)
        : "l"(a), "l"(b), "n"(A_ALONG_K ? 0 : 1), "n"(B_ALONG_K ? 0 : 1));
}

// d += A B: 64 rows, 128 columns, 16 steps.
template <bool A_ALONG_K, bool B_ALONG_K>
__device__ __forceinline__ void multiply_steps(float (&d)[16][4], u64 a, u64 b) {
    asm volatile(
        "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {"
        "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
        "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
        "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
        "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63}, "
        "%64, %65, 1, 1, 1, %66, %67;"
        : SUMS_OF(0), SUMS_OF(1), SUMS_OF(2), SUMS_OF(3), SUMS_OF(4), SUMS_OF(5), SUMS_OF(6), SUMS_OF(7),
          SUMS_OF(8), SUMS_OF(9), SUMS_OF(10), SUMS_OF(11), SUMS_OF(12), SUMS_OF(13), SUMS_OF(14), SUMS_OF(15)
        : "l"(a), "l"(b), "n"(A_ALONG_K ? 0 : 1), "n"(B_ALONG_K ? 0 : 1));
}

// d += A B: 64 rows, 64 columns, 16 steps.
template <bool A_ALONG_K, bool B_ALONG_K>
__device__ __forceinline__ void multiply_steps(float (&d)[8][4], u64 a, u64 b) {
    asm volatile(
        "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {"
        "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
        "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31}, "
        "%32, %33, 1, 1, 1, %34, %35;"
        : SUMS_OF(0), SUMS_OF(1), SUMS_OF(2), SUMS_OF(3), SUMS_OF(4), SUMS_OF(5), SUMS_OF(6), SUMS_OF(7)
        : "l"(a), "l"(b), "n"(A_ALONG_K ? 0 : 1), "n"(B_ALONG_K ? 0 : 1));
}

// d += A B: 64 rows, 8 columns, 16 steps.
template <bool A_ALONG_K, bool B_ALONG_K>
__device__ __forceinline__ void multiply_steps(float (&d)[1][4], u64 a, u64 b) {
    asm volatile(
        "wgmma.mma_async.sync.aligned.m64n8k16.f32.bf16.bf16 {"
        "%0, %1, %2, %3}, "
        "%4, %5, 1, 1, 1, %6, %7;"
        : SUMS_OF(0)
        : "l"(a), "l"(b), "n"(A_ALONG_K ? 0 : 1), "n"(B_ALONG_K ? 0 : 1));
}

#undef SUMS_OF
