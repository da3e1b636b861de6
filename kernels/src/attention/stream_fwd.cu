// The same as row_fwd.cu for any number of tokens: a block has 64 or 128 queries of a head and streams its keys and
// values past them (attend.cuh), 64 at a time and the next ones on the way.
//
// Defines: MASKED where there is a mask.

#include "attention/attend.cuh"

#if defined(MASKED)
#define NAME attention_fwd_stream_masked
constexpr bool IS_MASKED = true;
#else
#define NAME attention_fwd_stream
constexpr bool IS_MASKED = false;
#endif

constexpr int WARPS = 4;
constexpr int PARTS = HEAD > 64 || IS_MASKED ? 1 : 2;       // of 16 queries that a warp has
constexpr int BLOCKS = HEAD > 64 ? 2 : (HEAD > 32 ? 3 : 4); // of a multiprocessor that registers leave room for
constexpr int ROWS = 16 * PARTS * WARPS;                    // own rows of a block
constexpr int TILE = 64;                                    // keys of a tile
constexpr u32 TILE_BYTES = TILE * ROW_BYTES;

// qkv: [B, T, 3, H, D], valid: [B] or null, out: [B, T, H, D], lse: [B, H, T], masks: [1 or B, 1 or H, T, T], or null
// if not MASKED
// p.tiles: of ROWS rows in T
KERNEL __launch_bounds__(32 * WARPS, BLOCKS)
    HEAD_ENTRY(NAME)(const element *qkv, const i32 *valid, element *out, float *lse, const float *masks, Problem p,
                     MaskStrides strides) {
    extern __shared__ __align__(512) uint4 shared[];
    const u32 query_tile = shared_address(shared);              // (ROWS, HEAD)
    const u32 key_tiles = query_tile + ROWS * ROW_BYTES;        // (2, TILE, HEAD)
    const u32 value_tiles = key_tiles + 2 * TILE_BYTES;         // (2, TILE, HEAD)
    const Place at = place(ROWS, p);
    const Keys keys = keys_of(valid, at.sample, p);
    const Score score(masks, strides, at, p);
    const Softmax softmax(IS_MASKED ? 1.0f : p.scale); // a masked score is scaled already
    const u32 own_row = 16 * PARTS * warp_id();

    const element *key_rows = part_of(qkv, 1, at, p); // values are H D further
    asm volatile("" : "+l"(key_rows));                // kept instead of what it is made of
    const auto copy_tile = [&](u32 start) {
        if (start >= keys.count) return;
        const Problem q = again(p);
        const u32 stage = start / TILE % 2 * TILE_BYTES;
        copy_vectors(key_tiles + stage, key_rows, token_stride(q), start, TILE, keys.count, q.size, threadIdx.x,
                     32 * WARPS);
        copy_vectors(value_tiles + stage, key_rows + row_stride(q), token_stride(q), start, TILE, keys.count, q.size,
                     threadIdx.x, 32 * WARPS);
    };

    copy_vectors(query_tile, part_of(qkv, 0, at, p), token_stride(p), at.first, ROWS, p.tokens, p.size, threadIdx.x,
                 32 * WARPS);
    copy_tile(0);
    copy_commit();

    Queries<PARTS, IS_MASKED> own;
    copy_wait<0>();
    __syncthreads(); // the queries are there, and the first tile
    own.load(Tile(query_tile), own_row);
    own.clear();
    for (u32 start = 0; start < keys.count; start += TILE) {
        copy_wait<0>();
        __syncthreads(); // this tile is there, and all warps have read the one before, where the next one goes
        copy_tile(start + TILE);
        copy_commit();
        if (at.first + own_row >= p.tokens) continue;
        const u32 stage = start / TILE % 2 * TILE_BYTES;
        const u32 lane = lane_again();
        Tile key(key_tiles + stage, lane), value(value_tiles + stage, lane);
        key.keep(), value.keep();
        own.take_all(key, value, min(keys.count - start, u32(TILE)), softmax, score, at.first + own_row, start,
                     start == 0);
    }
    copy_wait<0>(); // what is on its way to shared memory without keys
    const Problem q = again(p);
    const Place end = place(ROWS, q, block_again());
    const u32 first = end.first + own_row;
    if (first >= p.tokens) return;
    own.store(keys_of(valid, end.sample, q).wrong, rows_of(out, end, q), lse + end.pair * q.tokens, first, q);
}
