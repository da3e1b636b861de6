// Tensor-core products of one warp, the loads that feed them, and the layout in shared memory that those need.
//
// Fragments are as in the PTX manual ("Matrix Fragments for mma.m16n8k16"): with g = lane / 4 and t = lane % 4 a lane
// holds of
//
//     A [16, 16]: a[0] (g, 2t..), a[1] (g + 8, 2t..), a[2] (g, 2t + 8..), a[3] (g + 8, 2t + 8..), two columns a word
//     B [16, 8]:  b0 (2t.., g), b1 (2t + 8.., g), two rows a word
//     D [16, 8]:  d[0], d[1] (g, 2t), (g, 2t + 1); d[2], d[3] the same of row g + 8
//
// and with tf32 (m16n8k8) of A [16, 8]: a[0] (g, t), a[1] (g + 8, t), a[2] (g, t + 4), a[3] (g + 8, t + 4);
// of B [8, 8]: b0 (t, g), b1 (t + 4, g); of D as above.
#pragma once

#include "common/element.cuh"

// d += a b: A 16 x 16 and B 16 x 8 of bf16, sums in float32.
__device__ __forceinline__ void mma_bf16(float (&d)[4], const u32 (&a)[4], u32 b0, u32 b1) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
                 "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// d += a b: A 16 x 8 and B 8 x 8 of tf32 (to_tf32), sums in float32.
__device__ __forceinline__ void mma_tf32(float (&d)[4], const u32 (&a)[4], u32 b0, u32 b1) {
    asm("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 "
                 "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// A float32 rounded to the 10 fraction bits of tf32, ties away from zero.
__device__ __forceinline__ u32 to_tf32(float x) {
    u32 word;
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(word) : "f"(x));
    return word;
}

// Where something lies in shared memory, as the instructions below take it.
__device__ __forceinline__ u32 shared_address(const void *at) { return u32(__cvta_generic_to_shared(at)); }

// Four 8 x 8 matrices of 16-bit elements: lanes 8 i to 8 i + 7 give the addresses of matrix i's rows (16 aligned
// bytes each), and r[i] becomes elements (lane / 4, 2 (lane % 4)) and its right neighbour of it; transposed, of its
// transpose. A's fragment: matrices in the order upper left, lower left, upper right, lower right.
__device__ __forceinline__ void load_matrices(u32 row, u32 (&r)[4]) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(row)
                 : "memory");
}
__device__ __forceinline__ void load_matrices_transposed(u32 row, u32 (&r)[4]) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(row)
                 : "memory");
}
template <bool TRANSPOSED> __device__ __forceinline__ void load_matrices(u32 row, u32 (&r)[4]) {
    if constexpr (TRANSPOSED)
        load_matrices_transposed(row, r);
    else
        load_matrices(row, r);
}

#if defined(WGMMA)
// The other way: those four words to the matrices (stmatrix, sm_90).
__device__ __forceinline__ void store_matrices(u32 row, const u32 (&r)[4]) {
    asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(row), "r"(r[0]), "r"(r[1]), "r"(r[2]),
                 "r"(r[3])
                 : "memory");
}
#endif

// Four words of shared memory.
__device__ __forceinline__ void load_words(u32 at, u32 (&r)[4]) {
    asm volatile("ld.shared.v4.b32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(at)
                 : "memory");
}
__device__ __forceinline__ void load_words(u32 at, float (&r)[4]) {
    asm volatile("ld.shared.v4.f32 {%0, %1, %2, %3}, [%4];"
                 : "=f"(r[0]), "=f"(r[1]), "=f"(r[2]), "=f"(r[3])
                 : "r"(at)
                 : "memory");
}
__device__ __forceinline__ void store_words(u32 at, const float (&r)[4]) {
    asm volatile("st.shared.v4.f32 [%0], {%1, %2, %3, %4};" ::"r"(at), "f"(r[0]), "f"(r[1]), "f"(r[2]), "f"(r[3])
                 : "memory");
}

// Where pack `pack` (16 bytes) of row `row` lies in a tile of rows of PACKS packs: its number, from the tile's start.
// The packs of a row are exchanged so that eight rows' packs of one column, and eight packs of one row, lie in
// different banks: ldmatrix, cp.async and 16-byte accesses have no conflict in either direction. PACKS is a power of
// two. The tile starts at a multiple of 128 bytes.
template <int PACKS> __device__ __forceinline__ u32 swizzled(u32 row, u32 pack) {
    constexpr int TOGETHER = PACKS >= 8 ? 1 : 8 / PACKS; // rows in the 128 bytes of the banks
    constexpr int MASK = PACKS >= 8 ? 7 : PACKS - 1;
    return row * PACKS + (pack ^ (row / TOGETHER & MASK));
}

// The same of a tile along the rows whose elements are words: a row is a step. Lanes read a pack of each of four steps
// that follow each other, eight lanes two neighbouring packs of each: exchanged by 0, 2, 4 and 6 packs these, and eight
// packs of one step, are in different banks. PACKS is a multiple of 8.
template <int PACKS> __device__ __forceinline__ u32 swizzled_words(u32 step, u32 pack) {
    return step * PACKS + (pack ^ 2 * (step % 4));
}
