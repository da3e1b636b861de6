// Rows by index, and rows put at an index.
//
// A thread takes four units of the rows, as neighbouring threads take neighbouring units. A unit is 16, 8, 4, 2 or 1
// bytes: the widest that rows and addresses allow. Nothing is read or written at an index outside 0 .. rows: a gathered
// row is filled.

#include "common/divisor.cuh"

constexpr int UNITS = 4; // of a thread

__device__ __forceinline__ void fill(u32 word, uint4 &unit) { unit = make_uint4(word, word, word, word); }
__device__ __forceinline__ void fill(u32 word, uint2 &unit) { unit = make_uint2(word, word); }
template <typename Unit> __device__ __forceinline__ void fill(u32 word, Unit &unit) { unit = Unit(word); }

// out[m, j] = x[index[m], j]; x: [rows, width], index: [units / width], out: [units / width, width] in units.
// `missing` is the pattern of four bytes that fills rows whose index is outside.
template <typename Unit>
__device__ __forceinline__ void gather(const Unit *x, const i32 *index, Unit *out, u64 units, u64 rows,
                                       const Divisor &width, u32 missing) {
    const u64 first = u64(blockIdx.x) * blockDim.x * UNITS + threadIdx.x;
    Unit unit[UNITS];
#pragma unroll
    for (int k = 0; k < UNITS; k++) {
        const u64 n = first + k * blockDim.x;
        if (n < units) {
            const u64 m = units >> 31 ? n / width.divisor : quotient(n, width);
            const u64 row = i64(index[m]); // a negative index is far above
            if (row < rows) {
                unit[k] = x[row * width.divisor + (n - m * width.divisor)];
            } else {
                fill(missing, unit[k]);
            }
        }
    }
#pragma unroll
    for (int k = 0; k < UNITS; k++)
        if (first + k * blockDim.x < units) out[first + k * blockDim.x] = unit[k];
}

#define GATHER(bytes, Unit)                                                                                            \
    KERNEL copy_gather_##bytes(const Unit *x, const i32 *index, Unit *out, u64 units, u64 rows, Divisor width,         \
                               u32 missing) {                                                                          \
        gather(x, index, out, units, rows, width, missing);                                                            \
    }

GATHER(16, uint4)
GATHER(8, uint2)
GATHER(4, u32)
GATHER(2, u16)
GATHER(1, u8)

// x[index[m], j] = from[m, j]; from: [units / width, width] in units, index: [units / width], x: [rows, width].
template <typename Unit>
__device__ __forceinline__ void put(const Unit *from, const i32 *index, Unit *x, u64 units, u64 rows,
                                    const Divisor &width) {
    const u64 first = u64(blockIdx.x) * blockDim.x * UNITS + threadIdx.x;
    Unit unit[UNITS];
    u64 to[UNITS]; // place of the unit, or behind the last
    const u64 none = rows * width.divisor;
#pragma unroll
    for (int k = 0; k < UNITS; k++) {
        const u64 n = first + k * blockDim.x;
        to[k] = none;
        if (n < units) {
            const u64 m = units >> 31 ? n / width.divisor : quotient(n, width);
            const u64 row = i64(index[m]); // a negative index is far above
            unit[k] = from[n];
            if (row < rows) to[k] = row * width.divisor + (n - m * width.divisor);
        }
    }
#pragma unroll
    for (int k = 0; k < UNITS; k++)
        if (to[k] < none) x[to[k]] = unit[k];
}

#define PUT(bytes, Unit)                                                                                               \
    KERNEL copy_put_##bytes(const Unit *from, const i32 *index, Unit *x, u64 units, u64 rows, Divisor width) {         \
        put(from, index, x, units, rows, width);                                                                       \
    }

PUT(16, uint4)
PUT(8, uint2)
PUT(4, u32)
PUT(2, u16)
PUT(1, u8)
