// out[b, t, h] = sum_s softmax_s(scale q_t . k_s) v_s and lse[b, h, t] = log sum_s exp(scale q_t . k_s) in bf16 on
// tensor cores, for heads whose keys and values fit into shared memory.
//
// A block has `together` heads: all their keys and values come to shared memory at once, at 16-row granularity, and lie
// there to the end. After that one barrier its warps never meet: each takes 16 PARTS queries of a head after the other
// past all keys (attend.cuh). The next queries are on the way meanwhile.

#include "attention/attend.cuh"

constexpr int WARPS = 4;
constexpr int PARTS = HEAD > 64 ? 1 : 2;                    // of 16 queries that a warp has at once
constexpr int BLOCKS = HEAD > 64 ? 2 : (HEAD > 32 ? 3 : 4); // of a multiprocessor that registers leave room for
constexpr int ROWS = 16 * PARTS;

// Queries of one of the block's heads.
struct Task {
    u32 head, tile;
    __device__ __forceinline__ Task next(u32 by, u32 tiles) const {
        Task to = {head, tile + by};
        for (; to.tile >= tiles; to.tile -= tiles) to.head++;
        return to;
    }
};

// A warp's 16 COUNT queries from token `first` on, of the block's head `head`. copy_next starts the copy of the next
// ones to where these are.
template <int COUNT, typename F>
__device__ __forceinline__ void attend(u32 query_tile, u32 key_tile, u32 value_tile, F copy_next,
                                       const Softmax &softmax, Place block, u32 head, u32 first, const i32 *valid,
                                       element *out, float *lse, const Problem &p) {
    Queries<COUNT, false> queries;
    queries.load(Tile(query_tile), 0);
    __syncwarp(); // all lanes have read them
    copy_next();
    copy_commit();
    for (u32 referred = 16;;) {
        const u32 lane = lane_again();
        Tile keys(key_tile, lane), values(value_tile, lane);
        keys.keep(), values.keep();
        const Problem q = again(p);
        const u32 count = keys_of(valid, further(block, head, q).sample, q).count;
        queries.clear();
        queries.take_head(keys, values, count, referred, softmax);
        if (__builtin_expect(referred >= count || !queries.exceeds(), 1)) break;
        referred = count;
    }
    const Problem q = again(p);
    const Place at = further(block, head, q);
    queries.store(keys_of(valid, at.sample, q).wrong, rows_of(out, at, q), lse + at.pair * q.tokens, first, q);
}

// qkv: [B, T, 3, H, D], valid: [B] or null, out: [B, T, H, D], lse: [B, H, T]
// p.tiles: of ROWS rows in T; pairs: B H
KERNEL __launch_bounds__(32 * WARPS, BLOCKS)
    HEAD_ENTRY(attention_fwd_row)(const element *qkv, const i32 *valid, element *out, float *lse, Problem p, u32 pairs,
                                  u32 together) {
    extern __shared__ __align__(512) uint4 shared[];
    const u32 first_pair = blockIdx.x * together, heads = min(together, pairs - first_pair);
    const u32 rows = (p.tokens + 15) / 16 * 16, warps = blockDim.x / 32;
    const u32 key_tiles = shared_address(shared);                    // (together, rows, HEAD)
    const u32 value_tiles = key_tiles + together * rows * ROW_BYTES; // (together, rows, HEAD)
    const u32 query_tile = value_tiles + together * rows * ROW_BYTES // (ROWS, HEAD) a warp
                           + warp_id() * ROWS * ROW_BYTES;
    const Place block = place_of(first_pair, p);
    const Softmax softmax(p.scale);

    const auto copy_queries = [&](Task task) {
        if (task.head >= heads) return;
        const Problem q = again(p);
        const element *queries = part_of(qkv, 0, further(block, task.head, q), q);
        copy_vectors(query_tile, queries, token_stride(q), task.tile * ROWS, ROWS, q.tokens, q.size, lane_id(), 32);
    };

    for (u32 i = 0; i < heads; i++) {
        const Place at = further(block, i, p);
        const u32 count = keys_of(valid, at.sample, p).count, filled = (count + 15) / 16 * 16;
        for (int part = 1; part <= 2; part++)
            copy_vectors((part == 1 ? key_tiles : value_tiles) + i * rows * ROW_BYTES, part_of(qkv, part, at, p),
                         token_stride(p), 0, filled, count, p.size, threadIdx.x, blockDim.x);
    }
    Task task = Task{0, 0}.next(warp_id(), p.tiles);
    copy_queries(task);
    copy_commit();
    copy_wait<0>();
    __syncthreads(); // keys and values are there, and the warp's queries

    for (; task.head < heads; task = task.next(warps, p.tiles)) {
        const u32 offset = task.head * rows * ROW_BYTES, first = task.tile * ROWS;
        const auto copy_next = [&] { copy_queries(task.next(warps, p.tiles)); };
        // The last of an odd number of 16 queries are alone.
        if (PARTS == 1 || first + 16 < p.tokens)
            attend<PARTS>(query_tile, key_tiles + offset, value_tiles + offset, copy_next, softmax, block,
                          task.head, first, valid, out, lse, p);
        else
            attend<1>(query_tile, key_tiles + offset, value_tiles + offset, copy_next, softmax, block,
                          task.head, first, valid, out, lse, p);
        copy_wait<0>();
        __syncwarp(); // the next queries are there for all lanes
    }
}
