// Sums over the rows of x [rows, channels] and maps of its elements, channel by channel, in 16-byte packs whatever the
// number of channels.
//
// Rows are contiguous, so PACK / gcd(channels, PACK) of them are one wide row that whole packs fill: 3 channels of f32
// make wide rows of 12 elements, 3 packs. Element i of pack p of every wide row is of channel (p * PACK + i) %
// channels. A thread stays at one pack p and goes down the wide rows, so that what belongs to its channels stays in
// registers. Blocks are (pack columns, rows): threads of a warp read contiguous packs.
#pragma once

#include "common/parts.cuh"

struct Columns {
    u64 elements;   // rows * channels
    u64 wide_rows;  // rounded up: the last may be cut short
    u64 whole_rows; // wide rows that are not
    u64 rows_each;  // wide rows of a block
    u32 channels;
    u32 packs; // of a wide row
};

// Where a thread is: its pack column, and its wide rows first, first + blockDim.y, .. below end.
struct Column {
    u32 pack;
    bool inside; // there is such a column
    u64 first, end;
    u64 whole_end; // rows below have all their elements
};

__device__ __forceinline__ Column column_of(const Columns &c) {
    Column at;
    at.pack = blockIdx.y * blockDim.x + threadIdx.x;
    at.inside = at.pack < c.packs;
    const u64 start = blockIdx.x * c.rows_each;
    at.first = start + threadIdx.y;
    at.end = min(start + c.rows_each, c.wide_rows);
    at.whole_end = min(at.end, c.whole_rows);
    return at;
}

// Where a pack starts.
__device__ __forceinline__ u64 pack_start(const Columns &c, u64 row, u32 pack) { return (row * c.packs + pack) * PACK; }

// How many elements a pack has.
__device__ __forceinline__ int pack_count(const Columns &c, u64 start) {
    return start >= c.elements ? 0 : int(min(c.elements - start, u64(PACK)));
}

// A number of each of the pack's channels; `missing` where there are none. `values` is [channels].
// `aligned`: to 16 bytes. All threads of a warp call this that have a column.
__device__ __forceinline__ void load_channels(const float *values, float missing, const Columns &c, u32 pack,
                                              bool aligned, float (&v)[PACK]) {
    const u32 x = blockDim.x; // where a power of two, threads of a warp have whole groups of x packs
    if (values && c.channels % PACK == 0 && aligned && (x & (x - 1)) == 0 && x > 1 && x <= 32 && c.packs % x == 0)
        return load_floats_together(values + u64(pack) * PACK, int(c.channels - pack * PACK), int(x), v);
    if (values && c.channels % PACK == 0) return load_floats(values + u64(pack) * PACK, PACK, aligned, v);
    u32 channel = pack * PACK % c.channels;
#pragma unroll
    for (int i = 0; i < PACK; i++) {
        v[i] = values ? values[channel] : missing;
        channel = channel + 1 == c.channels ? 0 : channel + 1;
    }
}

// Threads of a block at most.
constexpr int COLUMN_THREADS = 256;

// Two numbers of every thread and pack element. Threads are next to each other; the 8 keep the planes that one warp
// reads in different banks.
struct ColumnParts {
    double a[PACK][COLUMN_THREADS + 8];
    double b[PACK][COLUMN_THREADS + 8];
};

// Sums a and b over the rows of the block, in order: calls f(i, sum of a, sum of b) once for every element i of every
// pack column of the block, in a thread with this threadIdx.x.
template <typename F>
__device__ __forceinline__ void sum_columns(const double (&a)[PACK], const double (&b)[PACK], ColumnParts &parts, F f) {
    const int thread = threadIdx.y * blockDim.x + threadIdx.x;
#pragma unroll
    for (int i = 0; i < PACK; i++) {
        parts.a[i][thread] = a[i];
        parts.b[i][thread] = b[i];
    }
    __syncthreads(); // every thread's sums are written
    for (int i = threadIdx.y; i < PACK; i += blockDim.y) {
        double sum_a = 0.0, sum_b = 0.0;
        for (int at = threadIdx.x; at < blockDim.x * blockDim.y; at += blockDim.x) {
            sum_a += parts.a[i][at];
            sum_b += parts.b[i][at];
        }
        f(i, sum_a, sum_b);
    }
}

// Where the partial number `which` (0 or 1) of a block is kept for element i of a pack: [blocks, 2, PACK, packs].
__device__ __forceinline__ u64 partial_at(const Columns &c, u64 block, int which, int i, u32 pack) {
    return ((block * 2 + which) * PACK + i) * c.packs + pack;
}

// Blocks of (32, up to 32) threads put partial numbers together: thread x has a channel, thread y every blockDim.y-th
// block.
constexpr int FINISH = 32;

// Calls f(block, element of the wide row) for every partial number of a channel that this thread adds, in order.
template <typename F>
__device__ __forceinline__ void over_partials(const Columns &c, u64 blocks, u32 channel, F f) {
    const u32 wide = c.packs * PACK;
    for (u64 block = threadIdx.y; block < blocks; block += blockDim.y)
        for (u32 e = channel; e < wide; e += c.channels) f(block, e);
}

// The sum over threadIdx.y in order, in every thread.
__device__ __forceinline__ double finish_sum(double x, double (&part)[FINISH][FINISH + 1]) {
    __syncthreads(); // whoever still reads part from an earlier call is done
    part[threadIdx.y][threadIdx.x] = x;
    __syncthreads(); // part is written
    if (threadIdx.y == 0) {
        double sum = 0.0;
        for (int y = 0; y < blockDim.y; y++) sum += part[y][threadIdx.x];
        part[0][threadIdx.x] = sum;
    }
    __syncthreads(); // so are the sums
    return part[0][threadIdx.x];
}
