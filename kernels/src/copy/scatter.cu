// Rows added at their index: the gradient of rows by index. Deterministic, without atomics.
//
// A warp owns ROWS rows and 32 packs of columns of the result. It walks all indices (of one piece of them) in order,
// 128 at a time, and adds each row that goes to one of its rows to sums in shared memory, in float32. A lane touches no
// columns but its own, so nobody waits for anybody. Where few rows receive many, the indices are cut in pieces with
// partial results, which a further launch adds (reduce). An index outside 0 .. n matches no row.

#include "common/element.cuh"
#include "common/reduce.cuh"

constexpr int ROWS = 16;          // of a warp
constexpr int WARPS = 16 / PACK;  // of a block: 32 KiB of sums
constexpr int AHEAD = 4;          // rows on their way at once
constexpr int INDICES = 4;        // of a lane at once

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
                                            u64 step, u32 pieces, u32 tiles, u32 vector) {
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
            u32 matches = __ballot_sync(ALL_LANES, u64(target[q]) < ROWS);
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
        }
    }
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
                       u32 tiles, u32 vector) {                                                                        \
        scatter_add(dy, index, out, m, width, n, step, pieces, tiles, vector);                                         \
    }

SCATTER(copy_scatter_add, element)
SCATTER(copy_scatter_add_partial, float)
