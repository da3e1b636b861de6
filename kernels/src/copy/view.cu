// Strided elements to strided elements: views to contiguous tensors, and the parts of a concatenation.
//
// Dimensions arrive merged, innermost first, with sizes and steps by value. An element here is a unit of 16, 8, 4, 2 or
// 1 bytes: the launch takes the widest that the innermost runs, all steps, offsets and addresses allow.
//
// copy_units: neighbouring threads take neighbouring units of the innermost dimension of the result; four a thread, all
// loaded before the first is stored. For views whose innermost dimension lies in order, or is far from everything.
// copy_tiles: for transpositions. A block takes 1,024 elements of two dimensions, `near`, along which the source lies
// together, and `last`, along which the result does. It reads along the one, keeps the tile in shared memory, and
// writes along the other.
// copy_pairs: the same for 64 x 64 elements of 2 bytes, read and written two at a time.
// In shared memory bits 5 to 9 of a place are exclusive-ored into the bank: lanes meet 32 banks in both directions,
// whatever the tile's sides. A tile that is one run of the result or of the source (a dimension of few elements, an odd
// number, lies whole in it: the channels of an image) has in shared memory the order of that run, which is then moved
// without a gap, by all lanes; across it lanes are an odd number of banks apart.

#include "common/divisor.cuh"

struct Dim {
    Divisor size;
    u32 unused;
    u64 from; // step in the source
    u64 to;   // step in the result
};

struct View {
    u64 from; // first unit in the source
    u64 to;   // and in the result
    u64 units;
    u32 rank;     // of dims
    u32 wide;     // whether there are 2^31 units or more
    Dim dims[6];  // innermost first
};
static_assert(sizeof(Dim) == 32 && sizeof(View) == 32 + 6 * 32, "as the host passes it");

constexpr int UNITS = 4; // of a thread

// Adds the places of unit n, in the order of the result, to `from` and `to`.
__device__ __forceinline__ void find(const View &view, u64 n, u64 &from, u64 &to) {
    u32 small = n;
#pragma unroll
    for (int d = 0; d < 6; d++) {
        if (d >= view.rank) break;
        const Dim &dim = view.dims[d];
        u64 place;
        if (view.wide) {
            const u64 q = n / dim.size.divisor;
            place = n - q * dim.size.divisor, n = q;
        } else {
            const u32 q = quotient(small, dim.size);
            place = small - q * dim.size.divisor, small = q;
        }
        from += place * dim.from, to += place * dim.to;
    }
}

template <typename Unit> __device__ __forceinline__ void copy_units(const Unit *x, Unit *out, const View &view) {
    const u64 first = u64(blockIdx.x) * blockDim.x * UNITS + threadIdx.x;
    Unit unit[UNITS];
    u64 to[UNITS];
#pragma unroll
    for (int k = 0; k < UNITS; k++) {
        const u64 n = first + k * blockDim.x;
        u64 from = view.from;
        to[k] = view.to;
        if (n < view.units) {
            find(view, n, from, to[k]);
            unit[k] = x[from];
        }
    }
#pragma unroll
    for (int k = 0; k < UNITS; k++)
        if (first + k * blockDim.x < view.units) out[to[k]] = unit[k];
}

// Where a block's tile is: `near` and `last` are no dims of the view, `near_tiles` and `last_tiles` how many tiles
// they have.
struct Plane {
    u64 near_from, near_to; // steps along near
    u64 last_from;          // step along last; 1 in the result
    u32 near, last;         // sizes
    Divisor near_tiles, last_tiles;
    u32 log_near, log_last; // sides of a tile
    u32 run;                // 0, or whether a tile is one run of
    u32 unused;
};
static_assert(sizeof(Plane) == 72, "as the host passes it");

enum { RUN_OF_RESULT = 1, RUN_OF_SOURCE = 2 };

constexpr int TILE = 1024;   // elements of a tile
constexpr int THREADS = 256; // of a block

// A place of shared memory for element (i, j) of a tile, i along near, j along last.
__device__ __forceinline__ u32 place(u32 i, u32 j, u32 log_last) {
    const u32 flat = i << log_last | j;
    return flat ^ (flat >> 5);
}

template <int RUN, typename Unit>
__device__ __forceinline__ void copy_tile(const Unit *x, Unit *out, const Plane &plane, u32 near, u32 last, u32 *tile) {
    // Element (i, j) in the tile.
    const u32 width = RUN == RUN_OF_RESULT ? last : near;
    const auto place_of = [&](u32 i, u32 j) {
        return RUN == 0 ? place(i, j, plane.log_last) : RUN == RUN_OF_RESULT ? i * width + j : j * width + i;
    };
    const u32 length = RUN == RUN_OF_RESULT ? min(near, 1u << plane.log_near) * last
                                            : min(last, 1u << plane.log_last) * near;

    // A side is at most a block's threads, so that a thread keeps its i while it reads and its j while it writes.
    const u32 t = threadIdx.x;
    Unit unit[TILE / THREADS];
    if (RUN == RUN_OF_SOURCE) {
#pragma unroll
        for (int k = 0; k < TILE / THREADS; k++)
            if (t + k * THREADS < length) unit[k] = x[t + k * THREADS];
#pragma unroll
        for (int k = 0; k < TILE / THREADS; k++)
            if (t + k * THREADS < length) tile[t + k * THREADS] = unit[k];
    } else {
        const u32 i = t & ((1u << plane.log_near) - 1), j = t >> plane.log_near, rows = THREADS >> plane.log_near;
        const Unit *at = x + i * plane.near_from + j * plane.last_from;
        const u64 step = rows * plane.last_from;
#pragma unroll
        for (int k = 0; k < TILE / THREADS; k++, at += step)
            if (i < near && j + k * rows < last) unit[k] = *at;
#pragma unroll
        for (int k = 0; k < TILE / THREADS; k++)
            if (i < near && j + k * rows < last) tile[place_of(i, j + k * rows)] = unit[k];
    }
    __syncthreads(); // the tile is complete
    if (RUN == RUN_OF_RESULT) {
#pragma unroll
        for (int k = 0; k < TILE / THREADS; k++)
            if (t + k * THREADS < length) out[t + k * THREADS] = Unit(tile[t + k * THREADS]);
    } else {
        const u32 i = t >> plane.log_last, j = t & ((1u << plane.log_last) - 1), rows = THREADS >> plane.log_last;
        Unit *at = out + i * plane.near_to + j;
        const u64 step = rows * plane.near_to;
#pragma unroll
        for (int k = 0; k < TILE / THREADS; k++, at += step)
            if (i + k * rows < near && j < last) *at = Unit(tile[place_of(i + k * rows, j)]);
    }
}

template <typename Unit>
__device__ __forceinline__ void copy_tiles(const Unit *x, Unit *out, const View &view, const Plane &plane) {
    __shared__ u32 tile[TILE];
    u32 block = blockIdx.x;
    const u32 above_last = take_quotient(block, plane.last_tiles), last0 = block << plane.log_last;
    u32 near_tile = above_last;
    const u32 batch = take_quotient(near_tile, plane.near_tiles), near0 = near_tile << plane.log_near;
    u64 from = view.from + near0 * plane.near_from + last0 * plane.last_from;
    u64 to = view.to + near0 * plane.near_to + last0;
    find(view, batch, from, to);
    const u32 near = plane.near - near0, last = plane.last - last0;
    if (plane.run == RUN_OF_RESULT) copy_tile<RUN_OF_RESULT>(x + from, out + to, plane, near, last, tile);
    else if (plane.run == RUN_OF_SOURCE) copy_tile<RUN_OF_SOURCE>(x + from, out + to, plane, near, last, tile);
    else copy_tile<0>(x + from, out + to, plane, near, last, tile);
}

// Everything in elements, all even but near's step, which is 1; the sides of a tile are 64.
__device__ __forceinline__ void copy_pairs(const u16 *x, u16 *out, const View &view, const Plane &plane) {
    __shared__ u32 tile[2][TILE]; // words of two neighbours along last: even and odd elements along near
    u32 block = blockIdx.x;
    const u32 above_last = take_quotient(block, plane.last_tiles), last0 = block * 64;
    u32 near_tile = above_last;
    const u32 batch = take_quotient(near_tile, plane.near_tiles), near0 = near_tile * 64;
    u64 from = view.from + near0 + last0 * plane.last_from;
    u64 to = view.to + near0 * plane.near_to + last0;
    find(view, batch, from, to);
    const u32 near = (plane.near - near0) / 2, last = (plane.last - last0) / 2; // in pairs

    constexpr int ROWS = THREADS / 32; // of pairs at once
    const u32 i = threadIdx.x & 31, j = threadIdx.x >> 5;
    u32 even[TILE / THREADS], odd[TILE / THREADS]; // along last
    const u16 *at = x + from + 2 * i + 2 * j * plane.last_from;
#pragma unroll
    for (int k = 0; k < TILE / THREADS; k++, at += 2 * ROWS * plane.last_from) {
        if (i < near && j + k * ROWS < last) {
            even[k] = *reinterpret_cast<const u32 *>(at);
            odd[k] = *reinterpret_cast<const u32 *>(at + plane.last_from);
        }
    }
#pragma unroll
    for (int k = 0; k < TILE / THREADS; k++) {
        if (i < near && j + k * ROWS < last) {
            tile[0][place(i, j + k * ROWS, 5)] = __byte_perm(even[k], odd[k], 0x5410);
            tile[1][place(i, j + k * ROWS, 5)] = __byte_perm(even[k], odd[k], 0x7632);
        }
    }
    __syncthreads(); // both tiles are complete
    // Now j counts rows of the result, single ones along near, and i pairs along last.
    u16 *to_row = out + to + j * plane.near_to + 2 * i;
#pragma unroll
    for (int k = 0; k < 2 * TILE / THREADS; k++, to_row += ROWS * plane.near_to) {
        const u32 row = j + k * ROWS;
        if (row / 2 < near && i < last) *reinterpret_cast<u32 *>(to_row) = tile[row % 2][place(row / 2, i, 5)];
    }
}

#define UNITS_KERNEL(bytes, Unit)                                                                                      \
    KERNEL copy_units_##bytes(const Unit *x, Unit *out, const View view) { copy_units(x, out, view); }
#define TILES_KERNEL(bytes, Unit)                                                                                      \
    KERNEL copy_tiles_##bytes(const Unit *x, Unit *out, const View view, const Plane plane) {                          \
        copy_tiles(x, out, view, plane);                                                                               \
    }

UNITS_KERNEL(16, uint4)
UNITS_KERNEL(8, uint2)
UNITS_KERNEL(4, u32)
UNITS_KERNEL(2, u16)
UNITS_KERNEL(1, u8)
TILES_KERNEL(4, u32)
TILES_KERNEL(2, u16)
TILES_KERNEL(1, u8)
KERNEL copy_pairs_2(const u16 *x, u16 *out, const View view, const Plane plane) { copy_pairs(x, out, view, plane); }
