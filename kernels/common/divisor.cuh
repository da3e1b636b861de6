// Division of numbers below 2^31 by a number that the host knows, with a multiplication and a shift (Granlund and
// Montgomery, "Division by invariant integers using multiplication", 1994). The host side is in src/divisor.rs.
#pragma once

#include "common/element.cuh"

struct Divisor {
    u32 divisor, multiplier, shift;
};
static_assert(sizeof(Divisor) == 12, "as the host passes it");

__device__ __forceinline__ u32 quotient(u32 n, const Divisor &by) {
    return (__umulhi(n, by.multiplier) + n) >> by.shift;
}

// For templates whose divisor is known when they are compiled.
__device__ __forceinline__ u32 quotient(u32 n, u32 by) { return n / by; }
__device__ __forceinline__ u32 divisor(const Divisor &by) { return by.divisor; }
__device__ __forceinline__ u32 divisor(u32 by) { return by; }

// n / by, and n becomes the remainder.
__device__ __forceinline__ u32 take_quotient(u32 &n, const Divisor &by) {
    const u32 result = quotient(n, by);
    n -= result * by.divisor;
    return result;
}

// n % by, and n becomes the quotient.
__device__ __forceinline__ u32 take_remainder(u32 &n, const Divisor &by) {
    const u32 whole = quotient(n, by), remainder = n - whole * by.divisor;
    n = whole;
    return remainder;
}
