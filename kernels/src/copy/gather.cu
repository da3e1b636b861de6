// Rows by index.
//
// A thread takes four units of the result, as neighbouring threads take neighbouring units. A unit is 16, 8, 4, 2 or 1
// bytes: the widest that rows and addresses allow. Nothing is read at an index outside 0 .. rows: its row is filled.

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
