// Rows added at their index: the gradient of rows by index. Deterministic, without atomics.
//
// A warp owns ROWS rows and 32 packs of columns of the result. It walks all indices (of one piece of them) in order,
// 128 at a time, and adds each row that goes to one of its rows to sums in shared memory, in float32. A lane touches no
// columns but its own, so nobody waits for anybody. Where few rows receive many, the indices are cut in pieces with
// partial results, which a further launch adds (reduce). An index outside 0 .. n matches no row.
//
// Among many rows, one that receives thousands (a mask token's) would keep its warp busy long after all others are done.
// So a row that has LIMIT and more is given up here and noted in `hot`: hot_rows lists those, hot adds each from pieces of
// the indices, hot_sum the pieces.

#include "common/element.cuh"
#include "common/reduce.cuh"

constexpr int ROWS = 16;          // of a warp
constexpr int WARPS = 16 / PACK;  // of a block: 32 KiB of sums
constexpr int AHEAD = 4;          // rows on their way at once
constexpr int INDICES = 4;        // of a lane at once
constexpr u32 LIMIT = 512;        // rows that one row receives before it is hot, as cuda.rs has it

// The place of column k of a lane's PACK: neighbours where 16 bytes are read at once, else 32 apart.
__device__ __forceinline__ u32 column(u32 vector, int k) { return vector ? lane_id() * PACK + k : k * 32 + lane_id(); }

__device__ __forceinline__ void load_columns(const element *row, u64 width, u64 start, u32 vector, float (&v)[PACK]) {
    if (vector) {
        if (start + column(1, 0) < width) load_pack(row + start + column(1, 0), v);
        return;
    }
#pragma unroll
    for (int k = 0; k < PACK; k++)
        if (start + column(0, k) < width) v[k] = to_float(row[start + column(0, k)]);
}

__device__ __forceinline__ void store_pack_global(float *at, const float (&v)[8]) {
#pragma unroll
    for (int k = 0; k < 8; k += 4)
        store_global(at + k, __float_as_uint(v[k]), __float_as_uint(v[k + 1]), __float_as_uint(v[k + 2]),
                     __float_as_uint(v[k + 3]));
}

template <typename Out>
__device__ __forceinline__ void store_columns(Out *row, u64 width, u64 start, u32 vector, const float (&v)[PACK]) {
    if (vector) {
        if (start + column(1, 0) < width) store_pack_global(row + start + column(1, 0), v);
        return;
    }
#pragma unroll
    for (int k = 0; k < PACK; k++)
        if (start + column(0, k) < width) from_float(v[k], row[start + column(0, k)]);
}

// out[piece, r, j] = sum of dy[m, j] over the m of the piece with index[m] = r
// dy: [m, width], index: [m], out: [pieces, n, width]
template <typename Out>
__device__ __forceinline__ void scatter_add(const element *dy, const i32 *index, Out *out, u64 m, u64 width, u64 n,
                                            u64 step, u32 pieces, u32 tiles, u32 vector, i32 *hot) {
    __shared__ float sums[WARPS][ROWS][PACK][32];
    float(&sum)[ROWS][PACK][32] = sums[warp_id()];
    const u32 lane = lane_id();

    u64 item = u64(blockIdx.x) * WARPS + warp_id();
    const u64 tile = item % tiles;
    item /= tiles;
    const u64 groups = (n + ROWS - 1) / ROWS, row0 = item % groups * ROWS, piece = item / groups;
    if (piece >= pieces) return;
    const u64 start = tile * (32 * PACK);

#pragma unroll
    for (int r = 0; r < ROWS; r++)
#pragma unroll
        for (int k = 0; k < PACK; k++) sum[r][k][lane] = 0.0f;

    u32 seen = 0; // rows that went to row `lane` of the warp
    u32 full = 0; // a bit for each row that is given up
    const u64 last = (piece + 1) * step < m ? (piece + 1) * step : m;
    for (u64 base = piece * step; base < last; base += 32 * INDICES) {
        i64 target[INDICES]; // row of the warp, or outside 0 .. ROWS
#pragma unroll
        for (int q = 0; q < INDICES; q++) {
            const u64 at = base + q * 32 + lane;
            const i64 row = at < last ? index[at] : -1;
            target[q] = u64(row) < n ? row - i64(row0) : -1;
        }
#pragma unroll
        for (int q = 0; q < INDICES; q++) {
            const bool matched = u64(target[q]) < ROWS && !(full >> (u32(target[q]) & (ROWS - 1)) & 1);
            u32 matches = __ballot_sync(ALL_LANES, matched);
            if (matches == 0) continue;
            while (matches) {
                float v[AHEAD][PACK];
                int row[AHEAD];
#pragma unroll
                for (int a = 0; a < AHEAD; a++) {
                    row[a] = -1;
                    if (matches == 0) continue;
                    const int from = __ffs(matches) - 1;
                    matches &= matches - 1;
                    row[a] = __shfl_sync(ALL_LANES, int(target[q]), from);
                    seen += lane == u32(row[a]);
                    load_columns(dy + (base + q * 32 + from) * width, width, start, vector, v[a]);
                }
#pragma unroll
                for (int a = 0; a < AHEAD; a++) {
                    if (row[a] < 0) continue;
#pragma unroll
                    for (int k = 0; k < PACK; k++)
                        if (start + column(vector, k) < width) sum[row[a]][k][lane] += v[a][k];
                }
            }
            if (hot) full = __ballot_sync(ALL_LANES, seen > LIMIT);
        }
    }
    if (hot && tile == 0 && lane < ROWS && row0 + lane < n) hot[row0 + lane] = seen > LIMIT;
    Out *row = out + (piece * n + row0) * width;
    for (int r = 0; r < ROWS && row0 + r < n; r++, row += width) {
        float v[PACK];
#pragma unroll
        for (int k = 0; k < PACK; k++) v[k] = sum[r][k][lane];
        store_columns(row, width, start, vector, v);
    }
}

#define SCATTER(name, Out)                                                                                             \
    KERNEL ENTRY(name)(const element *dy, const i32 *index, Out *out, u64 m, u64 width, u64 n, u64 step, u32 pieces,   \
                       u32 tiles, u32 vector, i32 *hot) {                                                              \
        scatter_add(dy, index, out, m, width, n, step, pieces, tiles, vector, hot);                                    \
    }

SCATTER(copy_scatter_add, element)
SCATTER(copy_scatter_add_partial, float)

constexpr int LIST_WARPS = 32;

// rows = the places in order where hot is not 0, then -1 up to `most`; hot: [n], rows: [most]; one block
KERNEL __launch_bounds__(32 * LIST_WARPS) ENTRY(copy_scatter_hot_rows)(const i32 *hot, i32 *rows, u64 n, u32 most) {
    __shared__ u32 found[LIST_WARPS];
    u32 count = 0;
    for (u64 base = 0; base < n; base += blockDim.x) {
        const u64 row = base + threadIdx.x;
        const bool is_hot = row < n && hot[row];
        const u32 mask = __ballot_sync(ALL_LANES, is_hot);
        __syncthreads(); // whoever still reads found from the rows before is done
        if (lane_id() == 0) found[warp_id()] = __popc(mask);
        __syncthreads(); // found is written
        u32 place = count + __popc(mask & ((1u << lane_id()) - 1));
        for (int w = 0; w < LIST_WARPS; w++) {
            if (w < warp_id()) place += found[w];
            count += found[w];
        }
        if (is_hot) rows[place] = i32(row);
    }
    for (u32 place = count + threadIdx.x; place < most; place += blockDim.x) rows[place] = -1;
}

constexpr int DEEP = 8; // rows on their way at once

// partial[h, piece, j] = sum of dy[m, j] over the m of the piece with index[m] = rows[h], a warp for a piece and 32 packs
// of columns; dy: [m, width], index: [m], rows: [most], partial: [most, pieces, width]
KERNEL __launch_bounds__(128) ENTRY(copy_scatter_hot)(const element *dy, const i32 *index, const i32 *rows, float *partial,
                                                      u64 m, u64 width, u64 step, u32 pieces, u32 tiles, u32 most,
                                                      u32 vector) {
    const u32 item = blockIdx.x * 4 + warp_id(), tile = item % tiles, piece = item / tiles;
    if (piece >= pieces) return;
    const u64 start = u64(tile) * (32 * PACK);
    const u64 last = (piece + 1) * step < m ? (piece + 1) * step : m;
    for (u32 h = 0; h < most; h++) {
        const i32 wanted = rows[h];
        if (wanted < 0) return;
        float sum[PACK] = {};
        for (u64 base = piece * step; base < last; base += 32) {
            const u64 at = base + lane_id();
            u32 matches = __ballot_sync(ALL_LANES, at < last && index[at] == wanted);
            while (matches) {
                float v[DEEP][PACK] = {};
#pragma unroll
                for (int a = 0; a < DEEP; a++) {
                    if (matches == 0) continue;
                    const int from = __ffs(matches) - 1;
                    matches &= matches - 1;
                    load_columns(dy + (base + from) * width, width, start, vector, v[a]);
                }
#pragma unroll
                for (int a = 0; a < DEEP; a++)
#pragma unroll
                    for (int k = 0; k < PACK; k++) sum[k] += v[a][k];
            }
        }
        store_columns(partial + (u64(h) * pieces + piece) * width, width, start, vector, sum);
    }
}

// out[rows[h], j] = sum over pieces of partial[h, piece, j], a thread a column; out: [n, width]
KERNEL __launch_bounds__(256) ENTRY(copy_scatter_hot_sum)(const float *partial, const i32 *rows, element *out, u64 width,
                                                          u32 pieces, u32 most) {
    const u64 column = u64(blockIdx.x) * blockDim.x + threadIdx.x;
    if (column >= width) return;
    for (u32 h = 0; h < most && rows[h] >= 0; h++) {
        float sum = 0.0f;
        for (u32 piece = 0; piece < pieces; piece++) sum += partial[(u64(h) * pieces + piece) * width + column];
        from_float(sum, out[u64(rows[h]) * width + column]);
    }
}
