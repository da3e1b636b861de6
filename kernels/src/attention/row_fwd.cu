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
constexpr u32 EARLY = 64; // keys and values that work begins with while the others come

// Queries of one of the block's heads.
struct Task {
    u32 head, tile;
    __device__ __forceinline__ Task next(u32 by, u32 tiles) const {
        Task to = {head, tile + by};
        for (; to.tile >= tiles; to.tile -= tiles) to.head++;
        return to;
    }
};

// The heads of a block: where the first is, their number, and that of the warps which share their queries. In shared
// memory, for want of registers.
struct Heads {
    u32 sample, head, count, warps;
    __device__ __forceinline__ Heads(u32 first, u32 together, u32 pairs, const Problem &p)
        : sample(first / p.heads), head(first % p.heads), count(min(together, pairs - first)),
          warps(blockDim.x / 32) {}
    __device__ __forceinline__ Heads(const volatile Heads &of)
        : sample(of.sample), head(of.head), count(of.count), warps(of.warps) {}
    __device__ __forceinline__ void keep(volatile Heads &in) const {
        in.sample = sample, in.head = head, in.count = count, in.warps = warps;
    }
    __device__ __forceinline__ Place place(u32 number, const Problem &p) const {
        return further({sample, head, 0, u64(sample) * p.heads + head}, number, p);
    }
};

// Waits for the rest of keys and values, which came before the LEFT latest groups of copies. Warps come here from several
// places: the barrier has a number of its own.
template <int LEFT> __device__ __forceinline__ void wait_for_rest(u32 &rest) {
    copy_wait<LEFT>();
    asm volatile("bar.sync 1;" ::: "memory");
    rest = 0;
}

// A warp's 16 COUNT queries from token `first` on, of the block's head `head`. copy_next starts the copy of the next
// ones to where these are.
template <int COUNT, typename F>
__device__ __forceinline__ void attend(u32 query_tile, u32 key_tile, u32 value_tile, F copy_next, u32 &rest,
                                       const Softmax &softmax, const volatile Heads &heads, u32 head, u32 first,
                                       const i32 *valid, element *out, float *lse, const Problem &p) {
    Queries<COUNT, false> queries;
    queries.load(Tile(query_tile), 0);
    __syncwarp(); // all lanes have read them
    copy_next();
    copy_commit();
    const auto arrive = [&] { wait_for_rest<1>(rest); };
    for (bool all = false;; all = true) {
        const u32 lane = lane_again();
        Tile keys(key_tile, lane), values(value_tile, lane);
        keys.keep(), values.keep();
        const Problem q = again(p);
        const u32 count = keys_of(valid, Heads(heads).place(head, q).sample, q).count;
        queries.clear();
        queries.take_head(keys, values, count, all ? count : 16, softmax, rest, arrive);
        if (__builtin_expect(all || !queries.exceeds(), 1)) break;
    }
    const Problem q = again(p);
    const Place at = Heads(heads).place(head, q);
    queries.store(keys_of(valid, at.sample, q).wrong, rows_of(out, at, q), lse + at.pair * q.tokens, first, q);
}

// qkv: [B, T, 3, H, D], valid: [B] or null, out: [B, T, H, D], lse: [B, H, T]
// p.tiles: of ROWS rows in T; pairs: B H
KERNEL __launch_bounds__(32 * WARPS, BLOCKS)
    HEAD_ENTRY(attention_fwd_row)(const element *qkv, const i32 *valid, element *out, float *lse, Problem p, u32 pairs,
                                  u32 together) {
    extern __shared__ __align__(512) uint4 shared[];
    __shared__ uint4 kept_heads;
    static_assert(sizeof(Heads) <= sizeof kept_heads, "");
    volatile Heads &kept = reinterpret_cast<volatile Heads &>(kept_heads);
    const u32 rows = (p.tokens + 15) / 16 * 16;
    const u32 key_tiles = shared_address(shared);                    // (together, rows, HEAD)
    const u32 value_tiles = key_tiles + together * rows * ROW_BYTES; // (together, rows, HEAD)
    const u32 query_tile = value_tiles + together * rows * ROW_BYTES // (ROWS, HEAD) a warp
                           + warp_id() * ROWS * ROW_BYTES;
    const Heads heads(blockIdx.x * together, together, pairs, p);
    if (threadIdx.x == 0) heads.keep(kept);
    const Softmax softmax(p.scale);

    const auto copy_queries = [&](Task task, const Heads &heads) {
        if (task.head >= heads.count) return;
        const Problem q = again(p);
        const element *queries = part_of(qkv, 0, heads.place(task.head, q), q);
        copy_vectors(query_tile, queries, token_stride(q), task.tile * ROWS, ROWS, q.tokens, q.size, lane_id(), 32);
    };

    const auto copy_keys_and_values = [&](u32 from, u32 to) {
        for (u32 i = 0; i < heads.count; i++) {
            const Place at = heads.place(i, p);
            const u32 count = keys_of(valid, at.sample, p).count, end = min(to, (count + 15) / 16 * 16);
            if (from < end)
                copy_vectors<2>(key_tiles + (i * rows + from) * ROW_BYTES, part_of(qkv, 1, at, p), token_stride(p),
                                from, end - from, count, p.size, threadIdx.x, blockDim.x, row_stride(p),
                                together * rows * ROW_BYTES);
        }
        copy_commit();
    };
    Task task = Task{0, 0}.next(warp_id(), p.tiles);
    copy_queries(task, heads);
    copy_keys_and_values(0, EARLY);
    copy_keys_and_values(EARLY, rows);
    copy_wait<1>();
    __syncthreads(); // the first keys and values are there, and the warp's queries

    // Of several heads, none has more keys than the early ones: the host puts together what is short.
    const u32 count = keys_of(valid, heads.sample, p).count;
    u32 rest = count > EARLY ? count - EARLY : 0;
    for (; task.head < kept.count; task = task.next(kept.warps, p.tiles)) {
        const u32 offset = task.head * rows * ROW_BYTES, first = task.tile * ROWS;
        const auto copy_next = [&] {
            const Heads heads(kept);
            copy_queries(task.next(heads.warps, p.tiles), heads);
        };
        // The last of an odd number of 16 queries are alone.
        if (PARTS == 1 || first + 16 < p.tokens)
            attend<PARTS>(query_tile, key_tiles + offset, value_tiles + offset, copy_next, rest, softmax, kept,
                          task.head, first, valid, out, lse, p);
        else
            attend<1>(query_tile, key_tiles + offset, value_tiles + offset, copy_next, rest, softmax, kept,
                          task.head, first, valid, out, lse, p);
        copy_wait<0>();
        __syncwarp(); // the next queries are there for all lanes
    }
    if (rest) wait_for_rest<0>(rest); // a warp without queries
}
