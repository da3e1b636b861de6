// Sums of the middle of [outer, reduced, inner]: columns where inner > 1, rows where inner is 1.
//
// Each input byte is read once, in 16 bytes where addresses and sizes allow. A long middle is cut in pieces whose sums
// (in float32) a further launch adds: nothing is atomic, and the order of every sum depends on the sizes alone. The
// square, the scaled or the transposed input is never stored.
//
// Columns: a warp reads `lanes` neighbouring packs of 32 / lanes rows at once; lane l adds up its own columns. The
// lanes of one column are added by shuffles, the warps of a block through shared memory.
// Rows: `threads` threads (a power of two, up to a block) add one piece of one row.
//
// Each entry point exists three times: element to element, element to float32 (`_partial`), float32 to element
// (`_finish`).

#include "common/element.cuh"
#include "common/reduce.cuh"

constexpr int WARPS = 8; // of a block at most

// The elements that one thread reads at once: a pack, or one.
template <bool PACKS, int WIDTH, typename T>
__device__ __forceinline__ void load(const T *at, float (&v)[WIDTH], bool aligned) {
    if constexpr (PACKS) {
        load_pack(at, v, aligned);
    } else {
        v[0] = to_float(*at);
    }
}

// out[o, piece, j] = sum over r of x[o, r, j] / divisor; x: [outer, reduced, inner], out: [outer, pieces, inner].
// A block takes `lanes` x WIDTH columns of one piece of `step` rows of one plane o.
template <bool PACKS, typename In, typename Out>
__device__ __forceinline__ void sum_columns(const In *x, Out *out, u64 reduced, u64 inner, u64 step, u32 pieces,
                                            u32 tiles, u32 log_lanes, float divisor, bool aligned) {
    constexpr int WIDTH = PACKS ? per_pack<In> : 1;
    constexpr int PITCH = 32 + 32 / WIDTH; // lanes of different columns of a pack lie in different banks
    __shared__ float part[WARPS][WIDTH * PITCH];

    const u32 lanes = 1u << log_lanes, rows = 32 >> log_lanes, warps = blockDim.x / 32;
    const u32 lane = lane_id() & (lanes - 1);
    const u32 tile = blockIdx.x % tiles, plane_piece = blockIdx.x / tiles;
    const u32 piece = plane_piece % pieces;
    const u64 plane = plane_piece / pieces;
    const u64 first = u64(piece) * step, last = first + step < reduced ? first + step : reduced;
    const u64 start = u64(tile) * lanes * WIDTH, column = start + lane * WIDTH;

    float sum[WIDTH] = {};
    if (column < inner) {
        u64 row = first + warp_id() * rows + (lane_id() >> log_lanes);
        const u64 stride = u64(warps) * rows;
        const In *at = x + (plane * reduced + row) * inner + column;
        // Four loads on their way at once hide the memory's latency.
        for (; row + 3 * stride < last; row += 4 * stride, at += 4 * stride * inner) {
            float v[4][WIDTH];
#pragma unroll
            for (int k = 0; k < 4; k++) load<PACKS>(at + k * stride * inner, v[k], aligned);
#pragma unroll
            for (int i = 0; i < WIDTH; i++) sum[i] += (v[0][i] + v[1][i]) + (v[2][i] + v[3][i]);
        }
        for (; row < last; row += stride, at += stride * inner) {
            float v[WIDTH];
            load<PACKS>(at, v, aligned);
#pragma unroll
            for (int i = 0; i < WIDTH; i++) sum[i] += v[i];
        }
    }
    for (u32 step = 16; step >= lanes; step /= 2) {
#pragma unroll
        for (int i = 0; i < WIDTH; i++) sum[i] += __shfl_xor_sync(ALL_LANES, sum[i], step);
    }
#pragma unroll
    for (int i = 0; i < WIDTH; i++) part[warp_id()][i * PITCH + lane_id()] = sum[i];
    __syncthreads(); // part is written
    for (u32 c = threadIdx.x; c < lanes * WIDTH && start + c < inner; c += blockDim.x) {
        const u32 at = (c % WIDTH) * PITCH + c / WIDTH;
        float total = part[0][at];
        for (u32 w = 1; w < warps; w++) total += part[w][at];
        from_float(total / divisor, out[(plane * pieces + piece) * inner + start + c]);
    }
}

// out[row, piece] = sum of x[row, first of piece ..] / divisor; x: [rows, length], out: [rows, pieces].
// Each `1 << log_threads` threads take one piece of `step` elements of one row.
template <typename In, typename Out>
__device__ __forceinline__ void sum_rows(const In *x, Out *out, u64 rows, u64 length, u64 step, u64 pieces,
                                         u32 log_threads, float divisor, u32 access) {
    constexpr int WIDTH = per_pack<In>;
    __shared__ float part[WARPS];

    const u32 threads = 1u << log_threads, thread = threadIdx.x & (threads - 1);
    const u64 item = (u64(blockIdx.x) * blockDim.x + threadIdx.x) >> log_threads;
    const bool present = item < rows * pieces;
    float total = 0.0f;
    if (present) {
        const u64 row = pieces == 1 ? item : item / pieces;
        const u64 first = (item - row * pieces) * step, last = first + step < length ? first + step : length;
        const In *at = x + row * length;
        float sum[WIDTH] = {};
        u64 tail = first; // where single elements begin
        const bool aligned = access == BY_PACK;
        if (access != BY_ELEMENT) {
            u64 i = first + u64(thread) * WIDTH;
            tail = first + (last - first) / WIDTH * WIDTH;
            const u64 stride = u64(threads) * WIDTH;
            for (; i + 3 * stride < tail; i += 4 * stride) {
                float v[4][WIDTH];
#pragma unroll
                for (int k = 0; k < 4; k++) load_pack(at + i + k * stride, v[k], aligned);
#pragma unroll
                for (int j = 0; j < WIDTH; j++) sum[j] += (v[0][j] + v[1][j]) + (v[2][j] + v[3][j]);
            }
            for (; i < tail; i += stride) {
                float v[WIDTH];
                load_pack(at + i, v, aligned);
#pragma unroll
                for (int j = 0; j < WIDTH; j++) sum[j] += v[j];
            }
        }
        u64 i = tail + thread;
        for (; i + 3 * threads < last; i += 4 * threads) {
#pragma unroll
            for (int k = 0; k < 4; k++) sum[k] += to_float(at[i + k * threads]);
        }
        for (; i < last; i += threads) sum[0] += to_float(at[i]);
#pragma unroll
        for (int half = WIDTH / 2; half > 0; half /= 2)
#pragma unroll
            for (int j = 0; j < half; j++) sum[j] += sum[j + half];
        total = sum[0];
    }
    for (u32 distance = threads < 32 ? threads / 2 : 16; distance > 0; distance /= 2)
        total += __shfl_xor_sync(ALL_LANES, total, distance);
    if (threads > 32) {
        // A group of more than a warp is the whole block.
        if (lane_id() == 0) part[warp_id()] = total;
        __syncthreads(); // part is written
        total = part[0];
        for (u32 w = 1; w < blockDim.x / 32; w++) total += part[w];
    }
    if (present && thread == 0) from_float(total / divisor, out[item]);
}

#define SUMS(suffix, In, Out)                                                                                          \
    KERNEL ENTRY(reduce_columns##suffix)(const In *x, Out *out, u64 reduced, u64 inner, u64 step, u32 pieces,          \
                                         u32 tiles, u32 log_lanes, float divisor, u32 access) {                        \
        if (access) {                                                                                                  \
            sum_columns<true>(x, out, reduced, inner, step, pieces, tiles, log_lanes, divisor,                         \
                              access == BY_PACK);                                                                      \
        } else {                                                                                                       \
            sum_columns<false>(x, out, reduced, inner, step, pieces, tiles, log_lanes, divisor,                        \
                               access == BY_PACK);                                                                     \
        }                                                                                                              \
    }                                                                                                                  \
    KERNEL ENTRY(reduce_rows##suffix)(const In *x, Out *out, u64 rows, u64 length, u64 step, u64 pieces,               \
                                      u32 log_threads, float divisor, u32 access) {                                    \
        sum_rows(x, out, rows, length, step, pieces, log_threads, divisor, access);                                    \
    }

SUMS(, element, element)
SUMS(_partial, element, float)
SUMS(_finish, float, element)
