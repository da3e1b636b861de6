// Gradients of attention (gradients.cuh) for heads that do not fit into shared memory: attention_bwd_stream_q has 64
// queries of a head a block and streams keys and values past them, 64 at a time and the next ones on the way;
// attention_bwd_stream_kv, launched after it, has 64 keys and streams queries and upstream gradients. The first leaves
// delta for the second. The bits are those of row_bwd.cu.

#include "attention/gradients.cuh"

#if defined(MASKED)
#define NAME(of) attention_bwd_stream_masked_##of
#else
#define NAME(of) attention_bwd_stream_##of
#endif

constexpr int WARPS = 4;
constexpr int TILE = 16 * WARPS; // rows, own and others
constexpr u32 TILE_BYTES = TILE * ROW_BYTES;

// Starts the copy of rows start .. start + 63 of a matrix, zeros from `end` on.
__device__ __forceinline__ void copy_tile(u32 tile, const element *rows, u64 stride, u32 start, u32 end,
                                          const Problem &p) {
    copy_vectors(tile, rows, stride, start, TILE, end, p.size, threadIdx.x, 32 * WARPS);
}

// qkv: [B, T, 3, H, D], valid: [B] or null, out, dout: [B, T, H, D], lse: [B, H, T], masks: [1 or B, 1 or H, T, T], or null if
// not MASKED
// dqkv: [B, T, 3, H, D], of which the queries' third is written; delta: [B, H, T], written
// p.tiles: of TILE rows in T
KERNEL __launch_bounds__(32 * WARPS, 2)
    HEAD_ENTRY(NAME(q))(const element *qkv, const i32 *valid, const element *out, const element *dout,
                                       const float *lse, element *dqkv, float *delta, const float *masks, Problem p,
                                       MaskStrides strides) {
    extern __shared__ __align__(512) uint4 shared[];
    const u32 queries = shared_address(shared);      // (TILE, HEAD)
    const u32 upstreams = queries + TILE_BYTES;      // (TILE, HEAD)
    const u32 key_tiles = upstreams + TILE_BYTES;    // (2, TILE, HEAD)
    const u32 value_tiles = key_tiles + 2 * TILE_BYTES; // (2, TILE, HEAD)
    const RowScalars scalars(queries + 6 * TILE_BYTES); // (TILE)
    const Place at = place(TILE, p);
    const Keys keys = keys_of(valid, at.sample, p);
    const Score score(masks, strides, at, p);
    const u32 own_row = 16 * warp_id();

    const auto copy_others = [&](u32 start, u32 stage) {
        if (start >= keys.count) return;
        copy_tile(key_tiles + stage * TILE_BYTES, part_of(qkv, 1, at, p), token_stride(p), start, keys.count, p);
        copy_tile(value_tiles + stage * TILE_BYTES, part_of(qkv, 2, at, p), token_stride(p), start, keys.count, p);
    };
    copy_tile(queries, part_of(qkv, 0, at, p), token_stride(p), at.first, p.tokens, p);
    copy_others(0, 0);
    copy_commit();
    load_upstream<TILE * PACKS / (32 * WARPS)>(upstreams, rows_of(dout, at, p), rows_of(out, at, p),
                                               lse + at.pair * p.tokens, at.first, TILE, scalars,
                                               delta + at.pair * p.tokens, p);
    copy_wait<0>();
    __syncthreads(); // the own vectors, lse and delta are there, and the first tile
    OwnQueries<1> own(queries, upstreams, own_row, at.first, scalars);

    u32 stage = 0;
    for (u32 start = 0; start < keys.count; start += TILE, stage ^= 1) {
        copy_wait<0>();
        __syncthreads(); // this tile is there, and all warps have read the one before, where the next one goes
        copy_others(start + TILE, stage ^ 1);
        copy_commit();
        if (at.first + own_row >= p.tokens) continue;
        const u32 columns = min(keys.count - start, u32(TILE));
        Tile key(key_tiles + stage * TILE_BYTES), value(value_tiles + stage * TILE_BYTES);
        key.keep(), value.keep();
        own.take_all(key, value, start, columns, score);
    }
    if (at.first + own_row >= p.tokens) return;
    own.store(keys.wrong ? NOT_A_NUMBER : p.scale, part_of(dqkv, 0, at, p), at.first + own_row, p);
}

// qkv: [B, T, 3, H, D], valid: [B] or null, dout: [B, T, H, D], lse, delta: [B, H, T], masks: as above
// dqkv: [B, T, 3, H, D], of which the keys' and values' thirds are written
// p.tiles: of TILE rows in T
KERNEL __launch_bounds__(32 * WARPS, 2)
    HEAD_ENTRY(NAME(kv))(const element *qkv, const i32 *valid, const element *dout, const float *lse,
                                        const float *delta, element *dqkv, const float *masks, Problem p, MaskStrides strides) {
    extern __shared__ __align__(512) uint4 shared[];
    const u32 keys = shared_address(shared);                // (TILE, HEAD)
    const u32 values = keys + TILE_BYTES;                   // (TILE, HEAD)
    const u32 query_tiles = values + TILE_BYTES;            // (2, TILE, HEAD)
    const u32 upstream_tiles = query_tiles + 2 * TILE_BYTES; // (2, TILE, HEAD)
    const RowScalars scalars(keys + 6 * TILE_BYTES); // (2, TILE)
    const Place at = place(TILE, p);
    const Keys seen = keys_of(valid, at.sample, p);
    const Score score(masks, strides, at, p);
    const u32 own_row = 16 * warp_id();
    const bool has_keys = at.first + own_row < seen.count;

    const auto copy_others = [&](u32 start, u32 stage) {
        if (start >= p.tokens) return;
        copy_tile(query_tiles + stage * TILE_BYTES, part_of(qkv, 0, at, p), token_stride(p), start, p.tokens, p);
        copy_tile(upstream_tiles + stage * TILE_BYTES, rows_of(dout, at, p), row_stride(p), start, p.tokens, p);
        for (u32 i = threadIdx.x; i < TILE; i += 32 * WARPS) {
            const u64 row = at.pair * p.tokens + start + i;
            const bool exists = start + i < p.tokens;
            scalars.set(stage * TILE + i, exists ? lse[row] : -INFINITE, exists ? delta[row] : 0.0f);
        }
    };
    copy_tile(keys, part_of(qkv, 1, at, p), token_stride(p), at.first, seen.count, p);
    copy_tile(values, part_of(qkv, 2, at, p), token_stride(p), at.first, seen.count, p);
    copy_others(0, 0);
    copy_commit();
    copy_wait<0>();
    __syncthreads(); // the own vectors are there, and the first tile
    OwnKeys<1> own(keys, values, own_row, at.first);

    u32 stage = 0;
    for (u32 start = 0; start < p.tokens && at.first < seen.count; start += TILE, stage ^= 1) {
        copy_wait<0>();
        __syncthreads(); // this tile is there, and all warps have read the one before, where the next one goes
        copy_others(start + TILE, stage ^ 1);
        copy_commit();
        if (!has_keys) continue;
        Tile query(query_tiles + stage * TILE_BYTES), upstream(upstream_tiles + stage * TILE_BYTES);
        query.keep(), upstream.keep();
        const u32 rows = min((p.tokens - start + 15) / 16 * 16, u32(TILE));
        own.take_all(query, upstream, start, rows, scalars.further(stage * TILE), score);
    }
    copy_wait<0>();
    if (at.first + own_row >= p.tokens) return;
    own.store(seen, part_of(dqkv, 1, at, p), part_of(dqkv, 2, at, p), at.first + own_row, p);
}
