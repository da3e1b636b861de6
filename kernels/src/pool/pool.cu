// Pooling of NHWC images: maximum over windows with its position, its gradient, and the gradient of the average over a
// whole image (the average itself is a sum over columns: reduce).
//
// A thread takes one output position and neighbouring channels where C and the addresses allow, 4 for the maximum
// and as many as 16 bytes hold for the average, else one: neighbouring threads take neighbouring channels.
// blockIdx.x covers the positions of an image, blockIdx.y images. Windows overlap in the cache; device memory is
// read once. Threads do not wait for each other. The gradient of the maximum is in gather form: a pixel looks at the
// windows that cover it, in order, so that nothing is added atomically.

#include "common/divisor.cuh"
#include "common/few.cuh"

struct Sizes {
    u32 images, h, w, c, kernel, stride, padding, p, q;
    Divisor channels; // channel groups of a position
    Divisor width;    // positions of a row of what is written
    Divisor step;     // stride
};
static_assert(sizeof(Sizes) == 72, "as the host passes it");

// Channels of a thread where C and the addresses allow: a position is 4 bytes whatever the element type, so that 4 of
// them, not a pack of elements, make the maximum's requests whole sectors.
constexpr int FEW = 4;

__device__ __forceinline__ void load(const element *at, float (&v)[1]) { v[0] = to_float(*at); }
__device__ __forceinline__ void load(const element *at, float (&v)[FEW]) { load_few(at, v); }
__device__ __forceinline__ void store(element *at, const float (&v)[1]) { from_float(v[0], *at); }
__device__ __forceinline__ void store(element *at, const float (&v)[FEW]) { store_few(at, v); }
#if defined(ELEMENT_BF16)
__device__ __forceinline__ void load(const element *at, float (&v)[PACK]) { load_pack(at, v); }
__device__ __forceinline__ void store(element *at, const float (&v)[PACK]) { store_pack(at, v); }
#endif
__device__ __forceinline__ void load_index(const i32 *at, i32 (&v)[1]) { v[0] = *at; }
__device__ __forceinline__ void load_index(const i32 *at, i32 (&v)[FEW]) {
    const int4 four = *reinterpret_cast<const int4 *>(at);
    v[0] = four.x, v[1] = four.y, v[2] = four.z, v[3] = four.w;
}
__device__ __forceinline__ void store_index(i32 *at, const i32 (&v)[1]) { *at = v[0]; }
__device__ __forceinline__ void store_index(i32 *at, const i32 (&v)[FEW]) {
    *reinterpret_cast<int4 *>(at) = make_int4(v[0], v[1], v[2], v[3]);
}

// The thread's place in an image: row, column, first channel. `item` counts them with channel groups innermost.
struct Place {
    u32 row, column, channel;
};
__device__ __forceinline__ Place place(u32 item, const Sizes &z, int width) {
    Place at;
    u32 group = item;
    u32 position = take_quotient(group, z.channels);
    at.channel = group * width;
    at.row = take_quotient(position, z.width);
    at.column = position;
    return at;
}

// y, index: [N, P, Q, C]; x: [N, H, W, C]. The first on ties; a NaN replaces what came before.
template <int WIDTH>
__device__ __forceinline__ void max_forward(const element *x, element *y, i32 *index, u32 items, const Sizes &z) {
    const u32 item = blockIdx.x * blockDim.x + threadIdx.x;
    if (item >= items) return;
    const Place at = place(item, z, WIDTH);
    // Where the window lies in the image. Padding is at most half the kernel, so its first row and column do.
    const i32 top = at.row * z.stride - z.padding, left = at.column * z.stride - z.padding;
    const u32 i0 = top < 0 ? 0 : top, i1 = min(u32(top + i32(z.kernel)), z.h);
    const u32 j0 = left < 0 ? 0 : left, j1 = min(u32(left + i32(z.kernel)), z.w);
    for (u32 n = blockIdx.y; n < z.images; n += gridDim.y) {
        const element *image = x + u64(n) * z.h * z.w * z.c + at.channel;
        float best[WIDTH];
        i32 position[WIDTH];
        load(image + u64(i0 * z.w + j0) * z.c, best);
#pragma unroll
        for (int k = 0; k < WIDTH; k++) position[k] = i0 * z.w + j0;
        for (u32 i = i0; i < i1; i++) {
            for (u32 j = j0; j < j1; j++) {
                float v[WIDTH];
                load(image + u64(i * z.w + j) * z.c, v);
#pragma unroll
                for (int k = 0; k < WIDTH; k++) {
                    const bool take = v[k] > best[k] || v[k] != v[k];
                    best[k] = take ? v[k] : best[k];
                    position[k] = take ? i * z.w + j : position[k];
                }
            }
        }
        const u64 to = u64(n) * z.p * z.q * z.c + u64(at.row * z.q + at.column) * z.c + at.channel;
        store(y + to, best);
        store_index(index + to, position);
    }
}

// dx: [N, H, W, C]; dy, index: [N, P, Q, C]. An index that is no pixel of its window goes nowhere.
template <int WIDTH>
__device__ __forceinline__ void max_backward(const element *dy, const i32 *index, element *dx, u32 items,
                                             const Sizes &z) {
    const u32 item = blockIdx.x * blockDim.x + threadIdx.x;
    if (item >= items) return;
    const Place at = place(item, z, WIDTH);
    // Windows p with p stride <= row + padding < p stride + kernel, and columns likewise.
    const u32 below = at.row + z.padding, right = at.column + z.padding;
    const u32 p0 = below < z.kernel ? 0 : quotient(below - z.kernel, z.step) + 1;
    const u32 q0 = right < z.kernel ? 0 : quotient(right - z.kernel, z.step) + 1;
    const u32 p1 = min(quotient(below, z.step) + 1, z.p), q1 = min(quotient(right, z.step) + 1, z.q);
    const i32 pixel = at.row * z.w + at.column;
    for (u32 n = blockIdx.y; n < z.images; n += gridDim.y) {
        const u64 windows = u64(n) * z.p * z.q * z.c + at.channel;
        float sum[WIDTH] = {};
        for (u32 p = p0; p < p1; p++) {
            for (u32 q = q0; q < q1; q++) {
                const u64 from = windows + u64(p * z.q + q) * z.c;
                float v[WIDTH];
                i32 position[WIDTH];
                load(dy + from, v);
                load_index(index + from, position);
#pragma unroll
                for (int k = 0; k < WIDTH; k++)
                    if (position[k] == pixel) sum[k] += v[k];
            }
        }
        store(dx + u64(n) * z.h * z.w * z.c + u64(pixel) * z.c + at.channel, sum);
    }
}

// dx[n, pixel, c] = dy[n, c] / pixels; dx: [N, H W, C], dy: [N, C]
template <int WIDTH>
__device__ __forceinline__ void average_backward(const element *dy, element *dx, u32 items, const Sizes &z) {
    const u32 item = blockIdx.x * blockDim.x + threadIdx.x;
    if (item >= items) return;
    u32 group = item;
    take_quotient(group, z.channels);
    const float pixels = z.h * z.w;
    for (u32 n = blockIdx.y; n < z.images; n += gridDim.y) {
        float v[WIDTH];
        load(dy + u64(n) * z.c + group * WIDTH, v);
#pragma unroll
        for (int k = 0; k < WIDTH; k++) v[k] /= pixels;
        store(dx + u64(n) * z.h * z.w * z.c + u64(item) * WIDTH, v);
    }
}

KERNEL ENTRY(pool_max_fwd)(const element *x, element *y, i32 *index, u32 items, const Sizes z, u32 vector) {
    if (vector) {
        max_forward<FEW>(x, y, index, items, z);
    } else {
        max_forward<1>(x, y, index, items, z);
    }
}

KERNEL ENTRY(pool_max_bwd)(const element *dy, const i32 *index, element *dx, u32 items, const Sizes z, u32 vector) {
    if (vector) {
        max_backward<FEW>(dy, index, dx, items, z);
    } else {
        max_backward<1>(dy, index, dx, items, z);
    }
}

KERNEL ENTRY(pool_average_bwd)(const element *dy, element *dx, u32 items, const Sizes z, u32 vector) {
    if (vector) {
        average_backward<PACK>(dy, dx, items, z);
    } else {
        average_backward<1>(dy, dx, items, z);
    }
}
