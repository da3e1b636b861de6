// Windows of planes: tiles of images, each from a place of its own.
//
// A thread takes four elements of the result, neighbouring threads neighbouring elements, so that the rows of a window are
// read in runs; a block reads the places of its windows once. An element is 4, 2 or 1 bytes. Nothing is read outside the
// planes: a window that is not inside its plane, or whose plane there is not, is filled.

#include "common/divisor.cuh"

constexpr u32 THREADS = 256;
constexpr int UNITS = 4; // of a thread

// out[m, i, j] = x[at[m, 0], at[m, 1] + i, at[m, 2] + j]; x: [planes, height, width], at: [elements / window, 3],
// out: [elements / window, window / columns, columns]. tops and lefts: places that a window can have.
template <typename Unit>
__device__ __forceinline__ void windows(const Unit *x, const i32 *at, Unit *out, u64 elements, u64 planes, u32 height,
                                        u32 width, u32 tops, u32 lefts, const Divisor &window, const Divisor &columns,
                                        u32 missing) {
    __shared__ i32 places[3 * THREADS * UNITS]; // of the windows of the block's elements: at most one an element
    const u64 start = u64(blockIdx.x) * THREADS * UNITS, end = min(start + THREADS * UNITS, elements);
    const auto window_of = [&](u64 n) { return n >> 31 ? n / window.divisor : quotient(n, window); };
    const u64 first = window_of(start);
    const u32 count = window_of(end - 1) + 1 - first;
    for (u32 i = threadIdx.x; i < 3 * count; i += THREADS) places[i] = at[3 * first + i];
    __syncthreads();
    Unit unit[UNITS];
#pragma unroll
    for (int k = 0; k < UNITS; k++) {
        const u64 n = start + k * THREADS + threadIdx.x;
        if (n < end) {
            const u64 m = window_of(n);
            u32 j = n - m * window.divisor;
            const u32 i = take_quotient(j, columns);
            const i32 *place = places + 3 * (m - first);
            const u64 plane = i64(place[0]); // a negative number is far above
            const u32 top = place[1], left = place[2];
            unit[k] = Unit(missing);
            if (plane < planes && top < tops && left < lefts)
                unit[k] = x[(plane * height + top + i) * width + left + j];
        }
    }
#pragma unroll
    for (int k = 0; k < UNITS; k++) {
        const u64 n = start + k * THREADS + threadIdx.x;
        if (n < end) out[n] = unit[k];
    }
}

#define WINDOWS(bytes, Unit)                                                                                           \
    KERNEL __launch_bounds__(THREADS) copy_windows_##bytes(const Unit *x, const i32 *at, Unit *out, u64 elements, u64 planes, u32 height,         \
                                u32 width, u32 tops, u32 lefts, Divisor window, Divisor columns, u32 missing) {        \
        windows(x, at, out, elements, planes, height, width, tops, lefts, window, columns, missing);                   \
    }

WINDOWS(4, u32)
WINDOWS(2, u16)
WINDOWS(1, u8)
