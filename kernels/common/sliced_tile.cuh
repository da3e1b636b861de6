// The loop of common/mma_tile.cuh where a tile holds the results of one warp: its steps are shared out instead of its
// results.
//
// Each of SLICES warps has all sums of the block, of a quarter of every tile's steps, so that a fragment is loaded for as
// many products as in larger tiles. Fragments of the next tile are loaded while those of this one are multiplied; as
// nobody reads a tile whose fragments everybody has, its place is written at once, and all STAGES tiles are on the way. At
// the end a warp gets the others' sums of its own rows through shared memory, in an order that is always the same.
#pragma once

// Adds the slices' sums, each warp those of the mma tile of rows that has its number, into sums[0]. `shared`: LOOP_BYTES,
// which nobody uses any more.
__device__ __forceinline__ void add_slices(Sums &sums, u32 shared) {
    static_assert(SLICES == 1 || TILES_M == SLICES, "a warp has one mma tile of rows in the end");
    static_assert(SLICES * (SLICES - 1) * TILES_N * 32 * 16 <= LOOP_BYTES, "all sums but a warp's own rows' fit");
    const u32 slice = slice_of_warp(), lane = 16 * (threadIdx.x % 32);
    // Where a lane's sums of column tile j for rows `to` from slice `from` are. Each lane's 16 bytes are beside the next's.
    const auto place = [&](u32 from, u32 to, int j) {
        const u32 number = to * (SLICES - 1) + from - (from > to ? 1 : 0);
        return shared + (number * TILES_N + j) * 32 * 16 + lane;
    };
    float own[TILES_N][4];
#pragma unroll
    for (int i = 0; i < TILES_M; i++) {
#pragma unroll
        for (int j = 0; j < TILES_N; j++) {
            if (i == slice) {
#pragma unroll
                for (int e = 0; e < 4; e++) own[j][e] = sums[i][j][e];
            } else {
                store_words(place(slice, i, j), sums[i][j]);
            }
        }
    }
    __syncthreads(); // all sums are there
#pragma unroll
    for (int j = 0; j < TILES_N; j++) {
#pragma unroll
        for (int from = 0; from < SLICES; from++) {
            float v[4];
            if (from == slice) {
#pragma unroll
                for (int e = 0; e < 4; e++) v[e] = own[j][e];
            } else {
                load_words(place(from, slice, j), v);
            }
#pragma unroll
            for (int e = 0; e < 4; e++) sums[0][j][e] = from == 0 ? v[e] : sums[0][j][e] + v[e];
        }
    }
    __syncthreads(); // all sums are read
}

// Whether an operand's Fragments go from tile to tile, rather than be told where each tile is. Those along the rows have
// addresses to compute either way; along k it takes an addition, but where registers are short the compiler finds the
// fragments' offset anew in every step.
#if defined(NORMALISED)
template <bool ALONG_K> constexpr bool FRAGMENTS_GO_ON = true;
#else
template <bool ALONG_K> constexpr bool FRAGMENTS_GO_ON = !ALONG_K;
#endif

// Steps after which both the tile's place and the registers of its fragments are the first ones again.
constexpr int ROUND = 2 * STAGES;

// Does rounds of steps of multiply_slices(), as long as tiles to copy are whole. Places are numbers that the compiler knows,
// and no pack of a matrix is asked whether it is outside: a third of the instructions beside products are left out. `steps`
// becomes what is left to do.
template <typename A, typename B, typename Left, typename Right, typename Rows>
__device__ __forceinline__ void multiply_rounds(
    A &a, B &b, u32 &steps, u32 shared, const Left &left, u32 left_tiles, const Right &right, u32 right_tiles,
    u32 (&x)[2][TILES_M][4], u32 (&y)[2][TILES_N / 2][4], Sums &sums, Rows &rows, Rounding &rounding
) {
    const u32 ragged = max(a.ragged, b.ragged);
    const u32 least = ragged ? ROUND + STAGES + ragged : ROUND; // steps that must be left
    u32 a_first = shared + A::Packs::place(0), b_first = shared + A_BYTES + B::Packs::place(0);
    asm volatile("" : "+r"(a_first), "+r"(b_first)); // else the compiler takes the sums apart
#pragma unroll 1
    for (; steps >= least; steps -= ROUND) {
#pragma unroll
        for (int i = 0; i < ROUND; i++) {
            const u32 place = i % STAGES * STAGE_BYTES, next = (i + 1) % STAGES * STAGE_BYTES;
            const bool more = steps - i > STAGES;
            copy_wait<STAGES - 2>();
            if (steps - i > 1) arrived(a, shared + next, STAGES - 1), arrived(b, shared + next + A_BYTES, STAGES - 1);
            __syncthreads(); // as in multiply_slices()
            left.load(left_tiles + next, 0, x[(i + 1) % 2]);
            right.load(right_tiles + next, 0, y[(i + 1) % 2]);
            a.copy_whole(a_first + place, more), b.copy_whole(b_first + place, more);
            a.advance(), b.advance();
            copy_commit();
            multiply_fragments(x[i % 2], y[i % 2], sums, rows, rounding);
        }
        a.forget(), b.forget();
    }
    a.forget(), b.forget();
}

// As multiply().
template <bool A_ALONG_K, bool B_ALONG_K, typename A, typename B, typename Rows>
__device__ __forceinline__ bool multiply_slices(A &a, B &b, u32 steps, u32 shared, Sums &sums, Rows &rows) {
    Fragments<TILE_M, A_ALONG_K, false> left(0);
    Fragments<TILE_N, B_ALONG_K, true> right(0);
    left.skip(slice_of_warp()), right.skip(slice_of_warp());
    constexpr bool LEFT_GOES_ON = FRAGMENTS_GO_ON<A_ALONG_K>, RIGHT_GOES_ON = FRAGMENTS_GO_ON<B_ALONG_K>;
    if (LEFT_GOES_ON) left.offset += shared;
    if (RIGHT_GOES_ON) right.offset += shared + A_BYTES;
    u32 x[2][TILES_M][4], y[2][TILES_N / 2][4];
    Rounding rounding;
    const u32 end = shared + LOOP_BYTES;
#pragma unroll
    for (int stage = 0; stage < STAGES; stage++) {
        a.copy(shared + stage * STAGE_BYTES, 0, A::COUNT, true);
        b.copy(shared + stage * STAGE_BYTES + A_BYTES, 0, B::COUNT, true);
        a.advance(), b.advance();
        copy_commit();
    }
    copy_wait<STAGES - 1>();
    arrived(a, shared, STAGES), arrived(b, shared + A_BYTES, STAGES);
    __syncthreads(); // everybody's copies of the first tile have arrived
    const auto load = [&](u32 tile, u32(&x)[TILES_M][4], u32(&y)[TILES_N / 2][4]) {
        left.load(LEFT_GOES_ON ? 0 : tile, 0, x), right.load(RIGHT_GOES_ON ? 0 : tile + A_BYTES, 0, y);
    };
    load(shared, x[0], y[0]);

    if constexpr (goes_in_rounds<A> && goes_in_rounds<B>)
        multiply_rounds(
            a, b, steps, shared, left, LEFT_GOES_ON ? 0 : shared, right, RIGHT_GOES_ON ? 0 : shared + A_BYTES, x, y, sums, rows, rounding
        );
    u32 place = shared; // of this tile
    const auto step = [&](u32(&x)[TILES_M][4], u32(&y)[TILES_N / 2][4], u32(&next_x)[TILES_M][4], u32(&next_y)[TILES_N / 2][4]) {
        const bool more = steps > STAGES; // there is a tile to copy
        const u32 on = place + STAGE_BYTES == end ? STAGE_BYTES - LOOP_BYTES : STAGE_BYTES, next = place + on;
        copy_wait<STAGES - 2>();
        if (steps > 1) arrived(a, next, STAGES - 1), arrived(b, next + A_BYTES, STAGES - 1);
        // The next tile has arrived for everybody, and everybody has the fragments of this one, which is written next.
        __syncthreads();
        if (LEFT_GOES_ON) left.offset += on;
        if (RIGHT_GOES_ON) right.offset += on;
        load(next, next_x, next_y); // behind the last tile not used
        a.copy(place, 0, A::COUNT, more);
        b.copy(place + A_BYTES, 0, B::COUNT, more);
        a.advance(), b.advance();
        copy_commit();
        place = next;
        multiply_fragments(x, y, sums, rows, rounding);
    };
    if (steps > 0) {
#pragma unroll 1
        for (;;) {
            step(x[0], y[0], x[1], y[1]);
            if (--steps == 0) break;
            step(x[1], y[1], x[0], y[0]);
            if (--steps == 0) break;
            look_ahead(b);
        }
    }
    copy_wait<0>();
    const bool good = rounding.finish(); // nobody reads or writes a tile any more
    rows.add_slices(shared);
    add_slices(sums, shared);
    return good;
}
