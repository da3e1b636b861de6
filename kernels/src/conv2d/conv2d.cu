// Convolution and its two gradients as matrix products whose operands are gathered while they are read: no im2col
// matrix, no padded image, no flipped weights in global memory. Images are NHWC, weights [O, R, S, C].
//
//   forward   y[N P Q, O]   = windows of x [N P Q, R S C]      weights [O, R S C]
//   dgrad     dx[pixels, C] = windows of dy [pixels, R' S' O]  weights [C, R' S' O], for each residue class
//   wgrad     dw[O, R S C]  = dy [O, N P Q]                    pixels of x [R S C, N P Q]
//
// With groups, each of which is such a product by itself, C and O are a group's: blocks in y are groups, which begin at other
// channels of the same pixels.
//
// Each block computes one tile; see common/tile.cuh for the loop. Positions are kept as digits (kernel row, kernel
// column, channel) and (image, row, column) that are added with carries: no division in a loop.
//
// Input pixels whose (h + padding) mod stride and (w + padding) mod stride are equal meet the same kernel elements,
// every stride-th: each of these stride^2 residue classes is a product without multiplications by inserted zeros. With a
// dilation there is one class, and kernel elements lie so many pixels apart.

#include "common/tile.cuh"
#include "conv2d/places.cuh"
#include "conv2d/residue.cuh"

struct Convolution {
    i32 n, h, w, c, r, s, o, p, q, stride, padding, dilation; // dilation above 1: stride 1; c and o: of a group
    i32 all_c, all_o;          // channels of a pixel
    u32 part;                  // wgrad: steps k that a block sums
    u32 packs_a, packs_b;      // whether every 16 bytes of an operand's contiguous direction are aligned and whole
    u32 together;              // whether PER_N neighbouring results are stored at once
    Divisor tiles_n, tiles_m;
    Divisor outer;             // parts of wgrad; the stride, in dgrad
    Divisor rows, columns;     // of pixels that are counted: P and Q; in dgrad H and W over the stride
    Divisor channels;          // of what a window holds: C; in dgrad O
};
static_assert(sizeof(Convolution) == 144, "as in kernels/src/conv2d/cuda.rs");

__device__ __forceinline__ Digits add(Digits x, Digits y, i32 middle_size, i32 inner_size) {
    x.inner += y.inner;
    x.middle += y.middle;
    if (x.inner >= inner_size) x.inner -= inner_size, x.middle++;
    x.outer += y.outer;
    if (x.middle >= middle_size) x.middle -= middle_size, x.outer++;
    return x;
}
constexpr Digits ONE = {0, 0, 1};

// A row that is far enough outside of every image.
constexpr i32 NOWHERE = -(1 << 30);

// Operand A of forward and dgrad: a row is a pixel's window of an image [.., height, width, channels], its steps are
// (kernel row, kernel column, channel). Kernel elements go on by SIGN `dilation` pixels from the window's corner.
template <int SIGN> struct Windows {
    using Packs = Staged<TILE_M>;
    Packs staged;
    const element *image;
    i32 height, width, channels, kernel_rows, kernel_columns, dilation;
    i32 pitch, first; // elements from one pixel to the next; the first channel that is read
    i64 corner[Packs::COUNT]; // where each pack's window begins, in elements; outside of the image where it is padded
    i32 y[Packs::COUNT], x[Packs::COUNT];
    Digits tap, step; // kernel row, kernel column, channel of each pack's first element
    bool packs;

    template <typename Middle>
    __device__ __forceinline__ void begin(Middle columns, Divisor channels_of) {
        tap = digits(Packs::first_step(), columns, channels_of);
        step = digits(TILE_K, columns, channels_of);
    }

    __device__ __forceinline__ void place(int j, i32 n, i32 at_y, i32 at_x) {
        y[j] = at_y, x[j] = at_x;
        corner[j] = ((i64(n) * height + at_y) * width + at_x) * pitch + first;
    }

    __device__ __forceinline__ bool meets(int j, Digits at) const {
        return at.outer < kernel_rows && inside(y[j] + SIGN * dilation * at.outer, x[j] + SIGN * dilation * at.middle, height, width);
    }

    __device__ __forceinline__ i64 offset(Digits at) const {
        return i64(SIGN * dilation * (at.outer * width + at.middle)) * pitch + at.inner;
    }

    __device__ __forceinline__ void load() {
        if (packs) {
#pragma unroll
            for (int j = 0; j < Packs::COUNT; j++) {
#pragma unroll
                for (int i = 0; i < PACK; i++) staged.v[j][i] = 0.0f;
                if (meets(j, tap)) load_pack(image + (corner[j] + offset(tap)), staged.v[j]);
            }
            return;
        }
        Digits at = tap;
#pragma unroll
        for (int i = 0; i < PACK; i++) {
#pragma unroll
            for (int j = 0; j < Packs::COUNT; j++)
                staged.v[j][i] = meets(j, at) ? to_float(image[corner[j] + offset(at)]) : 0.0f;
            at = add(at, ONE, kernel_columns, channels);
        }
    }

    __device__ __forceinline__ void store(float *tile) const { staged.store_along_k(tile); }
    __device__ __forceinline__ void advance() { tap = add(tap, step, kernel_columns, channels); }
};

// x: [N, H, W, C], w: [O, R, S, C], y: [N, P, Q, O]
KERNEL __launch_bounds__(THREADS) TILED(conv2d_fwd)(const element *x, const element *w, element *y, Convolution z) {
    u32 tile = blockIdx.x;
    const u32 first_n = take_remainder(tile, z.tiles_n) * TILE_N;
    const u32 first_m = tile * TILE_M;
    const u32 pixels = z.n * z.p * z.q, length = z.r * z.s * z.c;

    Windows<1> windows;
    windows.image = x, windows.packs = z.packs_a, windows.pitch = z.all_c, windows.first = blockIdx.y * z.c;
    windows.height = z.h, windows.width = z.w, windows.channels = z.c;
    windows.kernel_rows = z.r, windows.kernel_columns = z.s, windows.dilation = z.dilation;
    windows.begin(u32(z.s), z.channels);
#pragma unroll
    for (int j = 0; j < Staged<TILE_M>::COUNT; j++) {
        const u32 m = first_m + Staged<TILE_M>::row_of(j);
        const Digits pixel = digits(m, z.rows, z.columns); // image, row, column
        const i32 top = pixel.middle * z.stride - z.padding, left = pixel.inner * z.stride - z.padding;
        windows.place(j, pixel.outer, m < pixels ? top : NOWHERE, left);
    }
    MatrixOperand<TILE_N> weights(w + u64(blockIdx.y) * z.o * length, {length, 1, z.packs_b}, first_n, z.o, 0, length);
    float sums[PER_M][PER_N] = {};
    multiply(windows, weights, length, sums);

#pragma unroll
    for (int i = 0; i < PER_M; i++) {
        const u32 row = first_m + sums_row() + i;
        if (row >= pixels) break;
        store_row(y + (u64(row) * z.all_o + blockIdx.y * z.o), first_n + sums_column(), z.o, z.together, sums[i]);
    }
}

// Operand B of dgrad: a row is an input channel, its steps are (kernel row, kernel column, output channel) of a residue
// class. Reads w: [O, R, S, C] along C.
struct ClassWeights {
    using Packs = Staged<TILE_N>;
    Packs staged;
    const element *w; // the class's first kernel element
    i32 c, channels, kernel_rows, kernel_columns, outputs;
    i64 output_jump, row_jump, column_jump; // elements to the next output channel, kernel row and column of the class
    Digits tap[Packs::COUNT], step;         // kernel row, kernel column, output channel of each pack
    bool packs;

    __device__ __forceinline__ void load() {
#pragma unroll
        for (int j = 0; j < Packs::COUNT; j++) {
            const Digits at = tap[j];
            const element *from = w + (at.inner * output_jump + at.outer * row_jump + at.middle * column_jump + c);
            const bool meets = at.outer < kernel_rows;
            if (packs) {
#pragma unroll
                for (int i = 0; i < PACK; i++) staged.v[j][i] = 0.0f;
                if (meets && c < channels) load_pack(from, staged.v[j]);
            } else {
#pragma unroll
                for (int i = 0; i < PACK; i++)
                    staged.v[j][i] = meets && c + i < channels ? to_float(from[i]) : 0.0f;
            }
        }
    }

    __device__ __forceinline__ void store(float *tile) const { staged.store_along_rows(tile); }
    __device__ __forceinline__ void advance() {
#pragma unroll
        for (int j = 0; j < Packs::COUNT; j++) tap[j] = add(tap[j], step, kernel_columns, outputs);
    }
};

// dy: [N, P, Q, O], w: [O, R, S, C], dx: [N, H, W, C]. Blocks: tiles of C, then of a class's pixels, then classes.
// Every class counts ceil(H / stride) x ceil(W / stride) pixels an image, of which the last may lie outside.
KERNEL __launch_bounds__(THREADS) TILED(conv2d_dgrad)(const element *dy, const element *w, element *dx, Convolution z) {
    u32 horizontal = blockIdx.x;
    const u32 first_n = take_remainder(horizontal, z.tiles_n) * TILE_N;
    const u32 first_m = take_remainder(horizontal, z.tiles_m) * TILE_M;
    const u32 vertical = take_remainder(horizontal, z.outer);
    const Residue down = residue_class(vertical, z.r, z.padding, z.stride, z.outer);
    const Residue right = residue_class(horizontal, z.s, z.padding, z.stride, z.outer);
    const u32 pixels = z.n * z.rows.divisor * z.columns.divisor;
    const u32 columns = max(right.taps, 1);

    Windows<-1> windows;
    windows.image = dy, windows.packs = z.packs_a, windows.pitch = z.all_o, windows.first = blockIdx.y * z.o;
    windows.height = z.p, windows.width = z.q, windows.channels = z.o;
    windows.kernel_rows = down.taps, windows.kernel_columns = columns, windows.dilation = z.dilation;
    windows.begin(columns, z.channels);
#pragma unroll
    for (int j = 0; j < Staged<TILE_M>::COUNT; j++) {
        const u32 m = first_m + Staged<TILE_M>::row_of(j);
        const Digits pixel = digits(m, z.rows, z.columns); // image, row, column of the class
        windows.place(j, pixel.outer, m < pixels ? down.output + pixel.middle : NOWHERE, right.output + pixel.inner);
    }
    ClassWeights weights;
    weights.w = w + ((i64(blockIdx.y) * z.o * z.r + down.residue) * z.s + right.residue) * z.c;
    weights.c = first_n + Staged<TILE_N>::first_row(), weights.channels = z.c, weights.outputs = z.o;
    weights.kernel_rows = down.taps, weights.kernel_columns = columns;
    weights.output_jump = i64(z.r) * z.s * z.c;
    weights.row_jump = i64(z.stride) * z.s * z.c, weights.column_jump = i64(z.stride) * z.c;
    weights.packs = z.packs_b;
    weights.step = digits(TILE_K, columns, z.channels);
#pragma unroll
    for (int j = 0; j < Staged<TILE_N>::COUNT; j++)
        weights.tap[j] = digits(Staged<TILE_N>::step_of(j), columns, z.channels);
    float sums[PER_M][PER_N] = {};
    multiply(windows, weights, u32(down.taps) * right.taps * z.o, sums);

#pragma unroll
    for (int i = 0; i < PER_M; i++) {
        const u32 row = first_m + sums_row() + i;
        if (row >= pixels) break;
        const Digits pixel = digits(row, z.rows, z.columns);
        const i32 h = down.first + pixel.middle * z.stride, w_at = right.first + pixel.inner * z.stride;
        if (h >= z.h || w_at >= z.w) continue;
        element *to = dx + ((i64(pixel.outer) * z.h + h) * z.w + w_at) * z.all_c + blockIdx.y * z.c;
        store_row(to, first_n + sums_column(), z.c, z.together, sums[i]);
    }
}

// Operand B of wgrad: a row is (kernel row, kernel column, input channel), its steps are output pixels. Reads
// x: [N, H, W, C] along C.
struct Pixels {
    using Packs = Staged<TILE_N>;
    Packs staged;
    const element *x;
    i32 h, w, c, s, p, q, stride, padding, dilation;
    i32 pitch;                        // elements from one pixel to the next
    u32 row, rows;                    // the first of a pack's rows, and R S C
    u32 k, end_k;                     // pack 0's step
    Digits tap;                       // kernel row, kernel column, channel of `row`
    Digits pixel[Packs::COUNT], step; // image, row, column of each pack's output pixel
    bool packs;

    __device__ __forceinline__ void load() {
#pragma unroll
        for (int j = 0; j < Packs::COUNT; j++) {
            const i32 top = pixel[j].middle * stride - padding, left = pixel[j].inner * stride - padding;
            const i64 first = i64(pixel[j].outer) * h;
            const bool there = k + j * Packs::STEP_JUMP < end_k;
            Digits at = tap;
            if (packs) {
#pragma unroll
                for (int i = 0; i < PACK; i++) staged.v[j][i] = 0.0f;
                const i32 y = top + dilation * at.outer, x_at = left + dilation * at.middle;
                if (there && row < rows && inside(y, x_at, h, w))
                    load_pack(x + (((first + y) * w + x_at) * pitch + at.inner), staged.v[j]);
                continue;
            }
#pragma unroll
            for (int i = 0; i < PACK; i++) {
                const i32 y = top + dilation * at.outer, x_at = left + dilation * at.middle;
                const bool meets = there && row + i < rows && inside(y, x_at, h, w);
                staged.v[j][i] = meets ? to_float(x[((first + y) * w + x_at) * pitch + at.inner]) : 0.0f;
                at = add(at, ONE, s, c);
            }
        }
    }

    __device__ __forceinline__ void store(float *tile) const { staged.store_along_rows(tile); }
    __device__ __forceinline__ void advance() {
        k += TILE_K;
#pragma unroll
        for (int j = 0; j < Packs::COUNT; j++) pixel[j] = add(pixel[j], step, p, q);
    }
};

// x: [N, H, W, C], dy: [N, P, Q, O], dw: [O, R, S, C], partial: [parts, O, R, S, C] or null. Blocks: tiles of R S C,
// then of O, then parts, whose sums matmul_sum_parts adds in order.
KERNEL __launch_bounds__(THREADS) TILED(conv2d_wgrad)(
    const element *x, const element *dy, element *dw, float *partial, Convolution z
) {
    u32 part = blockIdx.x;
    const u32 first_n = take_remainder(part, z.tiles_n) * TILE_N;
    const u32 first_m = take_remainder(part, z.tiles_m) * TILE_M;
    const u32 rows = z.r * z.s * z.c;
    const u32 first_k = part * z.part;
    const u32 end_k = min(first_k + z.part, u32(z.n * z.p * z.q));

    const u32 group = blockIdx.y;
    x += group * z.c, dy += group * z.o;
    MatrixOperand<TILE_M> gradient(dy, {u64(z.all_o), 0, z.packs_a}, first_m, z.o, first_k, end_k);
    Pixels pixels;
    pixels.x = x, pixels.pitch = z.all_c, pixels.h = z.h, pixels.w = z.w, pixels.c = z.c, pixels.s = z.s, pixels.p = z.p, pixels.q = z.q;
    pixels.stride = z.stride, pixels.padding = z.padding, pixels.dilation = z.dilation, pixels.packs = z.packs_b;
    pixels.row = first_n + Staged<TILE_N>::first_row(), pixels.rows = rows;
    pixels.k = first_k + Staged<TILE_N>::step_of(0), pixels.end_k = end_k;
    pixels.tap = digits(pixels.row, u32(z.s), z.channels);
    pixels.step = digits(TILE_K, z.rows, z.columns);
#pragma unroll
    for (int j = 0; j < Staged<TILE_N>::COUNT; j++)
        pixels.pixel[j] = digits(first_k + Staged<TILE_N>::step_of(j), z.rows, z.columns);
    float sums[PER_M][PER_N] = {};
    multiply(gradient, pixels, end_k - first_k, sums);

    const u32 column = first_n + sums_column();
#pragma unroll
    for (int i = 0; i < PER_M; i++) {
        const u32 row = first_m + sums_row() + i;
        if (row >= z.o) break;
        if (partial)
            store_row(partial + (u64(part) * z.all_o + group * z.o + row) * rows, column, rows, z.together, sums[i]);
        else
            store_row(dw + u64(group * z.o + row) * rows, column, rows, z.together, sums[i]);
    }
}
