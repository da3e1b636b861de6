//! Vectors of each processor generation behind one trait.

/// What one processor generation's registers are.
pub(super) trait Simd {
    type V: Copy;
    const LANES: usize;
    /// # Safety
    /// The processor must have this generation's instructions; pointers must be valid for `LANES` elements
    /// (one in `splat`). The same holds for all functions here.
    unsafe fn zero() -> Self::V;
    unsafe fn splat(x: *const f32) -> Self::V;
    unsafe fn load(x: *const f32) -> Self::V;
    unsafe fn store(x: *mut f32, v: Self::V);
    unsafe fn add(a: Self::V, b: Self::V) -> Self::V;
    /// `a b + c`.
    unsafe fn multiply_add(a: Self::V, b: Self::V, c: Self::V) -> Self::V;
}

/// Four lanes that the compiler maps to whatever the target has. No fused multiply-add.
pub(super) struct Portable;

impl Simd for Portable {
    type V = [f32; 4];
    const LANES: usize = 4;
    #[inline(always)]
    unsafe fn zero() -> [f32; 4] {
        [0.0; 4]
    }
    #[inline(always)]
    unsafe fn splat(x: *const f32) -> [f32; 4] {
        // SAFETY: the trait's contract.
        [unsafe { *x }; 4]
    }
    #[inline(always)]
    unsafe fn load(x: *const f32) -> [f32; 4] {
        // SAFETY: the trait's contract; an array is as aligned as its elements.
        unsafe { *x.cast() }
    }
    #[inline(always)]
    unsafe fn store(x: *mut f32, v: [f32; 4]) {
        // SAFETY: as above.
        unsafe { *x.cast() = v }
    }
    #[inline(always)]
    unsafe fn add(a: [f32; 4], b: [f32; 4]) -> [f32; 4] {
        [a[0] + b[0], a[1] + b[1], a[2] + b[2], a[3] + b[3]]
    }
    #[inline(always)]
    unsafe fn multiply_add(a: [f32; 4], b: [f32; 4], c: [f32; 4]) -> [f32; 4] {
        [a[0] * b[0] + c[0], a[1] * b[1] + c[1], a[2] * b[2] + c[2], a[3] * b[3] + c[3]]
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::Simd;
    use std::arch::x86_64::*;

    macro_rules! vectors {
        ($name:ident, $v:ty, $lanes:literal, $zero:ident, $splat:ident, $load:ident, $store:ident, $add:ident, $fma:ident) => {
            pub(in crate::matmul) struct $name;
            impl Simd for $name {
                type V = $v;
                const LANES: usize = $lanes;
                #[inline(always)]
                unsafe fn zero() -> $v {
                    // SAFETY: the trait's contract, here and below.
                    unsafe { $zero() }
                }
                #[inline(always)]
                unsafe fn splat(x: *const f32) -> $v {
                    // SAFETY: the trait's contract.
                    unsafe { $splat(*x) }
                }
                #[inline(always)]
                unsafe fn load(x: *const f32) -> $v {
                    // SAFETY: the trait's contract.
                    unsafe { $load(x) }
                }
                #[inline(always)]
                unsafe fn store(x: *mut f32, v: $v) {
                    // SAFETY: the trait's contract.
                    unsafe { $store(x, v) }
                }
                #[inline(always)]
                unsafe fn add(a: $v, b: $v) -> $v {
                    // SAFETY: the trait's contract.
                    unsafe { $add(a, b) }
                }
                #[inline(always)]
                unsafe fn multiply_add(a: $v, b: $v, c: $v) -> $v {
                    // SAFETY: the trait's contract.
                    unsafe { $fma(a, b, c) }
                }
            }
        };
    }
    vectors!(
        Avx2,
        __m256,
        8,
        _mm256_setzero_ps,
        _mm256_set1_ps,
        _mm256_loadu_ps,
        _mm256_storeu_ps,
        _mm256_add_ps,
        _mm256_fmadd_ps
    );
    vectors!(
        Avx512,
        __m512,
        16,
        _mm512_setzero_ps,
        _mm512_set1_ps,
        _mm512_loadu_ps,
        _mm512_storeu_ps,
        _mm512_add_ps,
        _mm512_fmadd_ps
    );
}
#[cfg(target_arch = "x86_64")]
pub(super) use x86::{Avx2, Avx512};
