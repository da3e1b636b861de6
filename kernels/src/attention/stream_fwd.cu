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
constexpr int PARTS = HEAD > 64 || IS_MASKED ? 1 : 2; // of 16 queries that a warp has
constexpr int BLOCKS = HEAD > 64 ? 2 : 3; // of a multiprocessor that registers leave room for
constexpr int ROWS = 16 * PARTS * WARPS; // own rows of a block
constexpr int TILE = 64;                 // keys of a tile
constexpr u32 TILE_BYTES = TILE * ROW_BYTES;

// qkv: [B, T, 3, H, D], valid: [B] or null, out: [B, T, H, D], lse: [B, H, T], masks: [1 or B, 1 or H, T, T], or null if not
// MASKED
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
    const bool has_rows = at.first + own_row < p.tokens;

    const auto copy_tile = [&](u32 start, u32 stage) {
        if (start >= keys.count) return;
        copy_rows(key_tiles + stage * TILE_BYTES, part_of(qkv, 1, at, p), token_stride(p), start, TILE, keys.count,
                  p.size, threadIdx.x, 32 * WARPS);
        copy_rows(value_tiles + stage * TILE_BYTES, part_of(qkv, 2, at, p), token_stride(p), start, TILE, keys.count,
                  p.size, threadIdx.x, 32 * WARPS);
    };

    copy_rows(query_tile, part_of(qkv, 0, at, p), token_stride(p), at.first, ROWS, p.tokens, p.size, threadIdx.x,
              32 * WARPS);
    copy_tile(0, 0);
    copy_commit();

    Queries<PARTS, IS_MASKED> own;
    const u32 first = at.first + own_row;
    u32 stage = 0;
    copy_wait<0>();
    __syncthreads(); // the queries are there, and the first tile
    own.load(Tile(query_tile), own_row, softmax);
    for (u32 start = 0; start < keys.count; start += TILE, stage ^= 1) {
        copy_wait<0>();
        __syncthreads(); // this tile is there, and all warps have read the one before, where the next one goes
        copy_tile(start + TILE, stage ^ 1);
        copy_commit();
        if (!has_rows) continue;
        Tile key(key_tiles + stage * TILE_BYTES), value(value_tiles + stage * TILE_BYTES);
        key.keep(), value.keep();
        own.take_all(key, value, min(keys.count - start, u32(TILE)), softmax, score, first, start, start == 0);
    }
    copy_wait<0>(); // what is on its way to shared memory without keys
    if (has_rows) own.store(keys.wrong, rows_of(out, at, p), lse + at.pair * p.tokens, first, p);
}
