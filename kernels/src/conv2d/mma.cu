// Convolution of bf16 and its two gradients on tensor cores, as matrix products whose operands are gathered while they are
// copied: no im2col matrix, no padded image, no flipped weights in global memory. Images are NHWC, weights [O, R, S, C].
//
//   PASS_FWD     y[N P Q, O]   = windows of x [N P Q, R S C]      weights [O, R S C]
//   PASS_DGRAD   dx[pixels, C] = windows of dy [pixels, R' S' O]  weights [C, R' S' O], for each residue class
//   PASS_WGRAD   dw[O, R S C]  = dy [O, N P Q]                    pixels of x [R S C, N P Q]
//
// With groups C and O are a group's, and blocks in y are groups, as in conv2d.cu.
//
// Each block computes one tile; see common/mma_tile.cuh for the loop. What each pass reads, and the residue classes of
// dgrad, are those of conv2d.cu. A window is kept as the element where it begins and a bit for each kernel element that
// says whether it lies inside the image, so that the loop has neither divisions nor comparisons of coordinates: R S is
// at most 32, tensors have less than 2^31 elements, channels are multiples of 8 (in dgrad O of 64), rows are aligned to
// 16 bytes. The steps k go over kernel elements, then channels; what is outside is zero and not read.
//
// With NORMALISED, forward and wgrad read relu(normalised(x)), which is never stored: each thread computes it in shared
// memory, on the packs that it copied itself, between their arrival and the barrier that shows them to others.

#include "common/mma_statistics.cuh"
#include "conv2d/class_operands.cuh"
#include "conv2d/pixels.cuh"
#include "conv2d/windows.cuh"

#if !defined(PASS_WGRAD)
// Whether a block computes one tile after the other; and where the tile of the result lies in shared memory, behind what
// start_copies() writes meanwhile.
#if defined(WGMMA) && !defined(NORMALISED)
constexpr bool PERSISTENT = true;
#else
constexpr bool PERSISTENT = false;
#endif
constexpr u32 TILE_AT = PERSISTENT ? STARTED_BYTES : 0;
#endif

#define NAMED(pass, m, n) NAMED_AS(pass, m, n)
#if defined(WGMMA)
#define NAMED_AS(pass, m, n) conv2d_wgmma_##pass##_##m##x##n##_bf16
#else
#define NAMED_AS(pass, m, n) conv2d_mma_##pass##_##m##x##n##_bf16
#endif

// The map of x's channels [3, map_stride] behind the other arguments.
#if defined(NORMALISED)
#define FWD fwd_normalised
#define WGRAD wgrad_normalised
#define MAP , const float *map, u64 map_stride
#else
#define FWD fwd
#define WGRAD wgrad
#define MAP
#endif

#if defined(PASS_FWD)
// x: [N, H, W, C], w: [O, R, S, C], y: [N, P, Q, O], statistics: [tiles of pixels, 2, O] or null. Blocks: tiles of O, then
// of pixels.
KERNEL __launch_bounds__(THREADS, BLOCKS) NAMED(FWD, TILE_M, TILE_N)(
    const bf16 *x, const bf16 *w, bf16 *y, float *statistics, Convolution z MAP
) {
    extern __shared__ __align__(ALIGNMENT) char shared[];
    const u32 pixels = z.n * z.p * z.q, length = z.r * z.s * z.c, memory = shared_address(shared);

#if defined(NORMALISED)
    NormalisedWindows windows;
    windows.map = {map, map_stride};
#else
    Windows windows;
#endif
    DenseOperand<TILE_N, true> weights(w, length, 0, 0, 0, length);
    u32 first_m, first_n;
    const auto begin = [&](u32 number) {
        first_n = take_remainder(number, z.tiles_n) * TILE_N, first_m = number * TILE_M;
        windows.begin(x, z, [&](u32 row, i32 &image, i32 &top, i32 &left) {
            const Digits pixel = digits(first_m + row, z.rows, z.columns); // image, row, column
            image = pixel.outer;
            top = pixel.middle * z.stride - z.padding, left = pixel.inner * z.stride - z.padding;
            return first_m + row < pixels;
        });
        weights = DenseOperand<TILE_N, true>(w + u64(blockIdx.y) * z.o * length, length, first_n, z.o, 0, length);
        start_copies(windows, weights, memory);
    };
    begin(blockIdx.x);
    for (u32 next = blockIdx.x + gridDim.x;; next += gridDim.x) {
        Sums sums = {};
        NoRowSums nothing;
        multiply<true, true>(windows, weights, (length + TILE_K - 1) / TILE_K, memory, sums, nothing);
        const u32 done_m = first_m, done_n = first_n;
        const bool more = PERSISTENT && next < z.blocks;
        if (more) begin(next);

        bf16 *tile = reinterpret_cast<bf16 *>(shared + TILE_AT);
        stage(sums, nullptr, tile);
        __syncthreads(); // the tile is written
        store_rows(tile, y, done_n, z.o, z.together, [&](u32 row) {
            return done_m + row < pixels ? i64(done_m + row) * z.all_o + blockIdx.y * z.o : i64(-1);
        });
        if (statistics)
            store_statistics(tile, min(pixels - done_m, TILE_M), done_n, z.o, statistics + u64(done_m / TILE_M) * 2 * z.o);
        if (!more) return;
    }
}
#endif

#if defined(PASS_DGRAD)
// dy: [N, P, Q, O], w: [O, R, S, C], dx: [N, H, W, C]. Blocks: tiles of C, then of a class's pixels, then classes.
// Every class counts ceil(H / stride) x ceil(W / stride) pixels an image, of which the last may lie outside.
KERNEL __launch_bounds__(THREADS, BLOCKS) NAMED(dgrad, TILE_M, TILE_N)(
    const bf16 *dy, const bf16 *w, bf16 *dx, Convolution z
) {
    extern __shared__ __align__(ALIGNMENT) char shared[];
    const u32 pixels = z.n * z.rows.divisor * z.columns.divisor, memory = shared_address(shared);
    ClassTile at(blockIdx.x, z);
    ClassWindows windows(dy, z, at.down, at.right, at.first_m);
    ClassWeights weights(w, z, at.down, at.right, at.first_n, &windows.walk);
    if (at.steps > 0)
        start_copies(windows, weights, memory);
    else
        __syncthreads(); // the windows' places are read, and no loop with a barrier follows
    for (u32 next = blockIdx.x + gridDim.x;; next += gridDim.x) {
        Sums sums = {};
        NoRowSums nothing;
        if (at.steps > 0) multiply<true, false>(windows, weights, at.steps, memory, sums, nothing);
        const ClassTile done = at;
        const bool more = PERSISTENT && next < z.blocks;
        if (more) {
            at = ClassTile(next, z);
            windows = ClassWindows(dy, z, at.down, at.right, at.first_m);
            weights = ClassWeights(w, z, at.down, at.right, at.first_n, &windows.walk);
            if (at.steps > 0) start_copies(windows, weights, memory);
        }

        bf16 *tile = reinterpret_cast<bf16 *>(shared + TILE_AT);
        stage(sums, nullptr, tile);
        __syncthreads(); // the tile is written
        store_rows(tile, dx, done.first_n, z.c, z.together, [&](u32 row) {
            const Digits pixel = digits(done.first_m + row, z.rows, z.columns);
            const i32 h = done.down.first + pixel.middle * z.stride, column = done.right.first + pixel.inner * z.stride;
            const bool exists = done.first_m + row < pixels && h < z.h && column < z.w;
            return exists ? ((i64(pixel.outer) * z.h + h) * z.w + column) * z.all_c + blockIdx.y * z.c : i64(-1);
        });
        if (!more) return;
        if (at.steps == 0) __syncthreads(); // as above, and the tile is read
    }
}
#endif

#if defined(PASS_WGRAD)
// x: [N, H, W, C], dy: [N, P, Q, O], dw: [O, R, S, C], partial: [parts, O, R, S, C] or null. Blocks: tiles of R S C,
// then of O, then parts, whose sums matmul_sum_parts adds in order.
KERNEL __launch_bounds__(THREADS, BLOCKS) NAMED(WGRAD, TILE_M, TILE_N)(
    const bf16 *x, const bf16 *dy, bf16 *dw, float *partial, Convolution z MAP
) {
    extern __shared__ __align__(ALIGNMENT) char shared[];
    u32 part = blockIdx.x;
    const u32 first_n = take_remainder(part, z.tiles_n) * TILE_N;
    const u32 first_m = take_remainder(part, z.tiles_m) * TILE_M;
    const u32 rows = z.r * z.s * z.c;
    const u32 first_k = part * z.part;
    const u32 end_k = min(first_k + z.part, u32(z.n * z.p * z.q));

    x += blockIdx.y * z.c, dy += blockIdx.y * z.o;
    DenseOperand<TILE_M, false> gradient(dy, z.all_o, first_m, z.o, first_k, end_k);
    __shared__ __align__(16) Place places[Pixels::RING];
    const u32 row = first_n + Pixels::Packs::inner();
#if defined(NORMALISED)
    NormalisedPixels pixels(x, z, places, row, first_k, end_k, {map, map_stride});
#else
    Pixels pixels(x, z, places, row, first_k, end_k);
#endif
    Sums sums = {};
    NoRowSums nothing;
    const u32 steps = (end_k - first_k + TILE_K - 1) / TILE_K;
    start_copies(gradient, pixels, shared_address(shared));
    multiply<false, false>(gradient, pixels, steps, shared_address(shared), sums, nothing);

    const u32 first_row = blockIdx.y * z.o + first_m; // among all output channels
    const auto place = [&](u32 row) { return first_m + row < z.o ? i64(first_row + row) * rows : i64(-1); };
    if (partial) {
        float *tile = reinterpret_cast<float *>(shared);
        stage(sums, nullptr, tile);
        __syncthreads(); // the tile is written
        store_rows(tile, partial + u64(part) * z.all_o * rows, first_n, rows, z.together, place);
    } else {
        bf16 *tile = reinterpret_cast<bf16 *>(shared);
        stage(sums, nullptr, tile);
        __syncthreads(); // the tile is written
        store_rows(tile, dw, first_n, rows, z.together, place);
    }
}
#endif
