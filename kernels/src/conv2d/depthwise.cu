// Depthwise convolution and its two gradients: a group has one input channel and `multiplier` output channels, so that there
// is nothing to multiply as matrices, and memory is what it costs. Images are NHWC: neighbouring channels are read together.
//
//   conv2d_depthwise_weights   w [O, R, S] to float32 [R, S, O], which the passes read by packs of channels
//   conv2d_depthwise_fwd       y[o] = sum over r, s of x[o / multiplier] w[r, s, o]; _wide for kernel widths 5 and 7
//   conv2d_depthwise_dgrad     dx[c] = sum over r, s and the channel's outputs of dy[o] w[r, s, o]
//   conv2d_depthwise_wgrad     sums of dy[o] x[o / multiplier] over the pixels of a part, for each r, s, o: [parts, R, S, O]
//   conv2d_depthwise_sum       adds the parts in order, to dw [O, R, S]
//
// A thread has a pack of 16 bytes of channels and RUN neighbouring output pixels of a row, so that an element of the weights is read
// for RUN pixels and, where the compiler knows the kernel's width and the stride, a pixel is read once for all kernel columns
// that meet it. Threads in x are packs, in y runs. With a multiplier above 1 a pack is one channel.

#include "common/divisor.cuh"
#include "common/few.cuh"

struct Depthwise {
    i32 n, h, w, c, r, s, o, p, q, stride, dilation, multiplier;
    i32 top, left;    // padding; of an input gradient as a forward pass it may be negative
    u32 runs;         // of all rows of all images: N P ceil(Q / RUN), in dgrad N H ceil(W / RUN)
    u32 part;         // wgrad: runs of a part
    Divisor across;   // runs of a row
    Divisor down;     // rows of an image: P, in dgrad H
    Divisor by_stride;
};
static_assert(sizeof(Depthwise) == 100, "as in kernels/src/conv2d/depthwise.rs");

constexpr int RUN = 4;
// Threads of a block.
constexpr int DEPTHWISE_THREADS = 256;

// A run of output pixels: its image, its row, and its first column.
struct Run {
    i32 image, row, column;
};

__device__ __forceinline__ Run run_of(u32 number, const Depthwise &z) {
    const u32 column = take_remainder(number, z.across), row = take_remainder(number, z.down);
    return {i32(number), i32(row), i32(column) * RUN};
}

// W channels of a pixel, or zeros.
template <int W> __device__ __forceinline__ void load_pixel(const element *at, bool inside, float (&v)[W]) {
#pragma unroll
    for (int i = 0; i < W; i++) v[i] = 0.0f;
    if (!inside) return;
    if constexpr (W == 1)
        v[0] = to_float(*at);
    else
        load_pack(at, v);
}

// W channels of the packed weights, 16 bytes at a time.
template <int W> __device__ __forceinline__ void load_weights(const float *at, float (&v)[W]) {
    if constexpr (W == 1) {
        v[0] = *at;
    } else {
#pragma unroll
        for (int half = 0; half < W; half += 4) {
            float four[4];
            load_pack(at + half, four);
#pragma unroll
            for (int i = 0; i < 4; i++) v[half + i] = four[i];
        }
    }
}

template <int W> __device__ __forceinline__ void store_pixel(element *at, const float (&v)[W]) {
    if constexpr (W == 1)
        from_float(v[0], *at);
    else
        store_pack_global(at, v);
}

template <int W> __device__ __forceinline__ void add_products(float (&sum)[W], const float (&a)[W], const float (&b)[W]) {
#pragma unroll
    for (int i = 0; i < W; i++) sum[i] = fmaf(a[i], b[i], sum[i]);
}

// packed[r, s, o] = w[o, r, s], in float32. `flip` turns the kernel around: then a forward pass over dy is the input gradient of
// stride 1.
KERNEL ENTRY(conv2d_depthwise_weights)(const element *w, float *packed, u32 o, u32 window, u32 flip) {
    const u32 channel = blockIdx.x * blockDim.x + threadIdx.x;
    if (channel >= o) return;
    const u32 tap = blockIdx.y;
    packed[u64(tap) * o + channel] = to_float(w[u64(channel) * window + (flip ? window - 1 - tap : tap)]);
}

// The sums of a run, from its first window's corner. S kernel columns with stride 1, or any of either where S is 0.
template <int W, int S>
__device__ __forceinline__ void sum_run(const element *x, const float *packed, const Depthwise &z, i32 top, i32 left,
                                        float (&sums)[RUN][W]) {
    for (i32 r = 0; r < z.r; r++) {
        const i32 row = top + r * z.dilation;
        if (u32(row) >= u32(z.h)) continue;
        const element *line = x + i64(row) * z.w * z.c;
        const float *weights = packed + u64(r) * z.s * z.o;
        if constexpr (S > 0) {
            constexpr int COLUMNS = RUN - 1 + S;
            float pixels[COLUMNS][W];
#pragma unroll
            for (int i = 0; i < COLUMNS; i++) {
                const i32 column = left + i;
                load_pixel<W>(line + column * z.c, u32(column) < u32(z.w), pixels[i]);
            }
#pragma unroll
            for (int s = 0; s < S; s++) {
                float weight[W];
                load_weights<W>(weights + u64(s) * z.o, weight);
#pragma unroll
                for (int i = 0; i < RUN; i++) add_products<W>(sums[i], pixels[i + s], weight);
            }
        } else {
            for (i32 s = 0; s < z.s; s++) {
                float weight[W];
                load_weights<W>(weights + u64(s) * z.o, weight);
#pragma unroll
                for (int i = 0; i < RUN; i++) {
                    const i32 column = left + i * z.stride + s * z.dilation;
                    float pixel[W];
                    load_pixel<W>(line + column * z.c, u32(column) < u32(z.w), pixel);
                    add_products<W>(sums[i], pixel, weight);
                }
            }
        }
    }
}

// WIDE: kernel widths of 5 and 7, whose pixels take so many registers that narrower kernels have a launch of their own.
template <int W, bool WIDE>
__device__ __forceinline__ void forward(const element *x, const float *packed, element *y, const Depthwise &z) {
    const i32 channel = (blockIdx.y * blockDim.x + threadIdx.x) * W;
    const u32 number = blockIdx.x * blockDim.y + threadIdx.y;
    if (channel >= z.o || number >= z.runs) return;
    const Run run = run_of(number, z);
    const i32 top = run.row * z.stride - z.top, left = run.column * z.stride - z.left;
    x += i64(run.image) * z.h * z.w * z.c + (W == 1 ? channel / z.multiplier : channel);
    packed += channel;
    float sums[RUN][W] = {};
    const bool known = W > 1 && z.dilation == 1 && z.stride == 1 && z.s == 3; // to the compiler
    if (WIDE && z.s == 5)
        sum_run<W, 5>(x, packed, z, top, left, sums);
    else if (WIDE)
        sum_run<W, 7>(x, packed, z, top, left, sums);
    else if (known)
        sum_run<W, 3>(x, packed, z, top, left, sums);
    else
        sum_run<W, 0>(x, packed, z, top, left, sums);
    y += ((i64(run.image) * z.p + run.row) * z.q + run.column) * z.o + channel;
#pragma unroll
    for (int i = 0; i < RUN; i++)
        if (run.column + i < z.q) store_pixel<W>(y + i * z.o, sums[i]);
}

// x: [N, H, W, C], packed: [R, S, O], y: [N, P, Q, O]. Blocks: runs, then channels.
KERNEL __launch_bounds__(DEPTHWISE_THREADS, 2) ENTRY(conv2d_depthwise_fwd)(const element *x, const float *packed,
                                                                           element *y, Depthwise z, u32 access) {
    if (access)
        forward<PACK, false>(x, packed, y, z);
    else
        forward<1, false>(x, packed, y, z);
}

// The same for whole packs, kernel widths of 5 and 7, stride 1 and no dilation.
KERNEL __launch_bounds__(DEPTHWISE_THREADS) ENTRY(conv2d_depthwise_fwd_wide)(const element *x, const float *packed,
                                                                             element *y, Depthwise z, u32 access) {
    forward<PACK, true>(x, packed, y, z);
}

template <int W>
__device__ __forceinline__ void input_gradient(const element *dy, const float *packed, element *dx, const Depthwise &z) {
    const i32 channel = (blockIdx.y * blockDim.x + threadIdx.x) * W;
    const u32 number = blockIdx.x * blockDim.y + threadIdx.y;
    if (channel >= z.c || number >= z.runs) return;
    const Run run = run_of(number, z);
    dy += i64(run.image) * z.p * z.q * z.o + channel * z.multiplier;
    packed += channel * z.multiplier;
    float sums[RUN][W] = {};
    for (i32 r = 0; r < z.r; r++) {
        // Output row p meets this row with kernel row r where h + top = p stride + r dilation.
        const i32 down = run.row + z.top - r * z.dilation;
        if (down < 0) continue;
        u32 row = down;
        if (take_remainder(row, z.by_stride) != 0 || i32(row) >= z.p) continue;
        const element *line = dy + i64(row) * z.q * z.o;
        for (i32 s = 0; s < z.s; s++) {
            const float *weights = packed + (u64(r) * z.s + s) * z.o;
            for (i32 j = 0; j < (W == 1 ? z.multiplier : 1); j++) {
                float weight[W];
                load_weights<W>(weights + j, weight);
#pragma unroll
                for (int i = 0; i < RUN; i++) {
                    const i32 right = run.column + i + z.left - s * z.dilation;
                    u32 column = right < 0 ? 0 : right;
                    const bool meets = right >= 0 && take_remainder(column, z.by_stride) == 0 && i32(column) < z.q;
                    float pixel[W];
                    load_pixel<W>(line + (i32(column) * z.o + j), meets, pixel);
                    add_products<W>(sums[i], pixel, weight);
                }
            }
        }
    }
    dx += ((i64(run.image) * z.h + run.row) * z.w + run.column) * z.c + channel;
#pragma unroll
    for (int i = 0; i < RUN; i++)
        if (run.column + i < z.w) store_pixel<W>(dx + i * z.c, sums[i]);
}

// dy: [N, P, Q, O], packed: [R, S, O], dx: [N, H, W, C]. Blocks: runs, then channels.
KERNEL __launch_bounds__(DEPTHWISE_THREADS, 2) ENTRY(conv2d_depthwise_dgrad)(const element *dy, const float *packed,
                                                                             element *dx, Depthwise z, u32 access) {
    if (access)
        input_gradient<PACK>(dy, packed, dx, z);
    else
        input_gradient<1>(dy, packed, dx, z);
}

// Kernel columns of which a thread of the weight gradient keeps the sums.
constexpr int COLUMNS_TOGETHER = 4;

// A thread's sums over every blockDim.y-th run of a part, for one kernel row and up to COLUMNS_TOGETHER kernel columns.
template <int W>
__device__ __forceinline__ void weight_gradient(const element *x, const element *dy, float *partial, const Depthwise &z,
                                                float *shared) {
    const i32 channel = (blockIdx.y * blockDim.x + threadIdx.x) * W;
    const i32 groups = (z.s + COLUMNS_TOGETHER - 1) / COLUMNS_TOGETHER;
    const i32 r = blockIdx.z / groups, first_s = blockIdx.z % groups * COLUMNS_TOGETHER;
    const bool exists = channel < z.o;
    const u32 first = blockIdx.x * z.part, end = min(first + z.part, z.runs);
    float sums[COLUMNS_TOGETHER][W] = {};
    for (u32 number = first + threadIdx.y; exists && number < end; number += blockDim.y) {
        const Run run = run_of(number, z);
        const i32 row = run.row * z.stride - z.top + r * z.dilation;
        if (u32(row) >= u32(z.h)) continue;
        const element *line = x + (i64(run.image) * z.h + row) * z.w * z.c + (W == 1 ? channel / z.multiplier : channel);
        const element *from = dy + ((i64(run.image) * z.p + run.row) * z.q + run.column) * z.o + channel;
#pragma unroll 2
        for (int i = 0; i < RUN; i++) {
            float gradient[W];
            load_pixel<W>(from + i * z.o, run.column + i < z.q, gradient);
            const i32 left = (run.column + i) * z.stride - z.left + first_s * z.dilation;
#pragma unroll
            for (int s = 0; s < COLUMNS_TOGETHER; s++) {
                const i32 column = left + s * z.dilation;
                const bool meets = first_s + s < z.s && run.column + i < z.q && u32(column) < u32(z.w);
                float pixel[W];
                load_pixel<W>(line + column * z.c, meets, pixel);
                add_products<W>(sums[s], gradient, pixel);
            }
        }
    }
    // The block's sums in the order of threadIdx.y, kernel column by kernel column.
    const u32 thread = threadIdx.y * blockDim.x + threadIdx.x, threads = blockDim.x * blockDim.y;
#pragma unroll
    for (int s = 0; s < COLUMNS_TOGETHER; s++) {
        if (first_s + s >= z.s) break; // the same in every thread
        __syncthreads(); // the sums of the last kernel column have been read
#pragma unroll
        for (int i = 0; i < W; i++) shared[i * threads + thread] = sums[s][i];
        __syncthreads(); // those of this one are there
        float *to = partial + ((u64(blockIdx.x) * z.r + r) * z.s + first_s + s) * z.o + channel;
        for (u32 i = threadIdx.y; exists && i < W; i += blockDim.y) {
            float sum = 0.0f;
            for (u32 y = 0; y < blockDim.y; y++) sum += shared[i * threads + y * blockDim.x + threadIdx.x];
            to[i] = sum;
        }
    }
}

// x: [N, H, W, C], dy: [N, P, Q, O], partial: [parts, R, S, O]. Blocks: parts, then channels, then kernel rows and groups of columns.
KERNEL __launch_bounds__(DEPTHWISE_THREADS) ENTRY(conv2d_depthwise_wgrad)(const element *x, const element *dy,
                                                                          float *partial, Depthwise z, u32 access) {
    __shared__ float shared[PACK * DEPTHWISE_THREADS];
    if (access)
        weight_gradient<PACK>(x, dy, partial, z, shared);
    else
        weight_gradient<1>(x, dy, partial, z, shared);
}

// dw[o, r, s] = sum over parts of partial[part, r, s, o], in order.
KERNEL ENTRY(conv2d_depthwise_sum)(const float *partial, element *dw, u32 parts, u32 o, u32 window) {
    const u32 channel = blockIdx.x * blockDim.x + threadIdx.x;
    if (channel >= o) return;
    const u64 at = u64(blockIdx.y) * o + channel;
    float sum = 0.0f;
    for (u32 part = 0; part < parts; part++) sum += partial[part * u64(window) * o + at];
    from_float(sum, dw[u64(channel) * window + blockIdx.y]);
}
