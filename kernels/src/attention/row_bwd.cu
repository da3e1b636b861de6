// Gradients of attention (gradients.cuh) where a head's queries, keys, values and upstream gradients fit into shared
// memory: each is read once, and a block that has them all needs no other.
//
// A block has `together` heads. It reads out beside the copies of all others, and makes delta. After the one
// barrier its warps never meet: each takes 16 keys of a head after the other, then 16 queries.

#include "attention/gradients.cuh"

constexpr int WARPS = HEAD > 64 ? 4 : 6; // so that two blocks of a multiprocessor have 168 registers a thread
constexpr int PARTS = HEAD > 32 ? 1 : 2; // of 16 keys, or queries, that a warp has at once
constexpr int AT_ONCE = 9;               // of a head of 208 rows of size 64, all

// A head in shared memory.
struct Head {
    u32 queries, keys, values, upstreams; // tiles (rows, HEAD)
    RowScalars scalars;
};

// The gradients of 16 COUNT keys and values, or queries, from row `first` on.
template <int COUNT>
__device__ __forceinline__ void write_gradients(bool of_keys, const Head &head, u32 first, const Place &at, u32 pair,
                                                u32 rows, const i32 *valid, element *dqkv, const Problem &p) {
    const Keys seen = keys_of(valid, at.sample, p);
    const Score score(nullptr, {}, at, p);
    if (of_keys) {
        OwnKeys<COUNT> own(head.keys, head.values, first, 0);
        Tile query(head.queries), upstream(head.upstreams);
        query.keep(), upstream.keep();
        if (first < seen.count) own.take_all(query, upstream, 0, rows, head.scalars, score);
        const Problem q = again(p);
        const Place end = place_of(pair, q);
        own.store(keys_of(valid, end.sample, q), part_of(dqkv, 1, end, q), part_of(dqkv, 2, end, q), first, q);
    } else {
        OwnQueries<COUNT> own(head.queries, head.upstreams, first, 0, head.scalars);
        Tile key(head.keys), value(head.values);
        key.keep(), value.keep();
        own.take_all(key, value, 0, seen.count, score);
        const Problem q = again(p);
        const Place end = place_of(pair, q);
        own.store(keys_of(valid, end.sample, q).wrong ? NOT_A_NUMBER : q.scale, part_of(dqkv, 0, end, q), first, q);
    }
}

// qkv: [B, T, 3, H, D], valid: [B] or null, out, dout: [B, T, H, D], lse: [B, H, T], dqkv: [B, T, 3, H, D]
// p.tiles: of 16 rows in T; pairs: B H
KERNEL __launch_bounds__(32 * WARPS, 2)
    HEAD_ENTRY(attention_bwd_row)(const element *qkv, const i32 *valid, const element *out, const element *dout,
                                  const float *lse, element *dqkv, Problem p, u32 pairs, u32 together) {
    extern __shared__ __align__(512) uint4 shared[];
    const u32 first_pair = blockIdx.x * together, heads = min(together, pairs - first_pair);
    const u32 rows = 16 * p.tiles, all_rows = together * rows;
    const u32 tiles = (p.tiles + PARTS - 1) / PARTS, tasks = heads * tiles; // of keys, and of queries
    const u32 queries = shared_address(shared);             // (together, rows, HEAD)
    const u32 keys = queries + all_rows * ROW_BYTES;        // (together, rows, HEAD)
    const u32 values = keys + all_rows * ROW_BYTES;         // (together, rows, HEAD)
    const u32 upstreams = values + all_rows * ROW_BYTES;    // (together, rows, HEAD)
    const RowScalars scalars(upstreams + all_rows * ROW_BYTES); // (together, rows)

    for (u32 i = 0; i < heads; i++) {
        const Place at = place_of(first_pair + i, p);
        const u32 count = keys_of(valid, at.sample, p).count, offset = i * rows * ROW_BYTES;
        copy_vectors(keys + offset, part_of(qkv, 1, at, p), token_stride(p), 0, rows, count, p.size, threadIdx.x,
                     blockDim.x);
        copy_vectors(values + offset, part_of(qkv, 2, at, p), token_stride(p), 0, rows, count, p.size, threadIdx.x,
                     blockDim.x);
        copy_vectors(queries + offset, part_of(qkv, 0, at, p), token_stride(p), 0, rows, p.tokens, p.size, threadIdx.x,
                     blockDim.x);
    }
    for (u32 i = 0; i < heads; i++) {
        const Place at = place_of(first_pair + i, p);
        load_upstream<AT_ONCE>(upstreams + i * rows * ROW_BYTES, rows_of(dout, at, p), rows_of(out, at, p),
                               lse + at.pair * p.tokens, 0, rows, scalars.further(i * rows), nullptr, p);
    }
    __syncthreads(); // all vectors, lse and delta are there

    for (u32 task = warp_id(); task < 2 * tasks; task += blockDim.x / 32) {
        const bool of_keys = task < tasks;
        const u32 number = of_keys ? task : task - tasks, i = number / tiles, first = number % tiles * 16 * PARTS;
        const Place at = place_of(first_pair + i, p);
        const u32 offset = i * rows * ROW_BYTES;
        const Head head = {queries + offset, keys + offset, values + offset, upstreams + offset, scalars.further(i * rows)};
        // The last of an odd number of 16 rows are alone.
        if (PARTS == 1 || first + 16 < rows)
            write_gradients<PARTS>(of_keys, head, first, at, first_pair + i, rows, valid, dqkv, p);
        else
            write_gradients<1>(of_keys, head, first, at, first_pair + i, rows, valid, dqkv, p);
    }
}
