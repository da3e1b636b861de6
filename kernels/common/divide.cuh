// Quotients by numbers that the host knows: a multiplication and a shift (Granlund and Montgomery, "Division by
// invariant integers using multiplication", 1994). `Divider` in kernels/src/matmul/divider.rs makes them.
#pragma once

#include "common/element.cuh"

// For n < 2^31.
struct Divider {
    u32 divisor, multiplier, shift;
};
__device__ __forceinline__ u32 divide(u32 n, Divider by) { return (__umulhi(n, by.multiplier) + n) >> by.shift; }
__device__ __forceinline__ u32 divide(u32 n, u32 by) { return n / by; }
__device__ __forceinline__ u32 divisor(Divider by) { return by.divisor; }
__device__ __forceinline__ u32 divisor(u32 by) { return by; }

// Divides n and returns the remainder.
__device__ __forceinline__ u32 take_remainder(u32 &n, Divider by) {
    const u32 quotient = divide(n, by), remainder = n - quotient * by.divisor;
    n = quotient;
    return remainder;
}
