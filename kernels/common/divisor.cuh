// Division of 32-bit numbers below 2^31 by a number that the host knows, with a multiplication and a shift (Granlund and
// Montgomery, "Division by invariant integers using multiplication", 1994). The host side is `Divisor` in src/cuda.rs.
#pragma once

#include "common/element.cuh"

struct Divisor {
    u32 divisor;
    u32 multiplier;
    u32 shift;
};
static_assert(sizeof(Divisor) == 12, "as the host passes it");

__device__ __forceinline__ u32 quotient(u32 n, const Divisor &d) { return (__umulhi(n, d.multiplier) + n) >> d.shift; }

// n / d, and n becomes the remainder.
__device__ __forceinline__ u32 divide(u32 &n, const Divisor &d) {
    u32 q = quotient(n, d);
    n -= q * d.divisor;
    return q;
}
