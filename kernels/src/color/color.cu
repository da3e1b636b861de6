// Colour for colorization: sRGB to Lab, soft targets over bins of the plane a, b, and the weight of each pixel. All float32.
//
// lab: a thread has a pixel. soft_encode: a warp has a point and keeps its distances to all bins in registers, 16 a lane; it
// takes the nearest of them one after another. pixel_weights: a block has an image, looks through it for colour, then writes
// its weights. What threads read with gaps (three values a pixel, a table) goes through shared memory, so that each request to
// the device's memory uses its sectors wholly.

#include "common/reduce.cuh"

constexpr u32 THREADS = 256, WARPS = THREADS / 32;
constexpr int EACH = 16;              // bins of a lane
constexpr u32 MOST_BINS = 32 * EACH;
#define INF __uint_as_float(0x7f800000u)
#define NOT_A_NUMBER __uint_as_float(0x7fffffffu)

// The light that an sRGB value stands for.
__device__ __forceinline__ float linear(float v) {
    return v > 0.04045f ? powf((v + 0.055f) / 1.055f, 2.4f) : v / 12.92f;
}

__device__ __forceinline__ float root(float t) { return t > 0.008856f ? cbrtf(t) : 7.787f * t + 16.0f / 116.0f; }

// rgb, lab: [pixels, 3]
KERNEL __launch_bounds__(THREADS) color_rgb_to_lab(const float *rgb, float *lab, u32 pixels) {
    __shared__ float values[3 * THREADS];
    const u64 first = 3 * u64(blockIdx.x) * THREADS;
    const u32 count = 3 * min(THREADS, pixels - blockIdx.x * THREADS);
    for (u32 i = threadIdx.x; i < count; i += THREADS) values[i] = rgb[first + i];
    __syncthreads();
    float *const pixel = values + 3 * threadIdx.x;
    if (3 * threadIdx.x < count) {
        const float r = linear(pixel[0]), g = linear(pixel[1]), b = linear(pixel[2]);
        // XYZ over white's (D65, 2 degrees).
        const float fx =
            root(float(0.412453 / 0.95047) * r + float(0.357580 / 0.95047) * g + float(0.180423 / 0.95047) * b);
        const float fy = root(0.212671f * r + 0.715160f * g + 0.072169f * b);
        const float fz =
            root(float(0.019334 / 1.08883) * r + float(0.119193 / 1.08883) * g + float(0.950227 / 1.08883) * b);
        pixel[0] = 116.0f * fy - 16.0f;
        pixel[1] = 500.0f * (fx - fy);
        pixel[2] = 200.0f * (fy - fz);
    }
    __syncthreads();
    for (u32 i = threadIdx.x; i < count; i += THREADS) lab[first + i] = values[i];
}

// Targets of a warp's point to `row`, and its nearest bin.
__device__ __forceinline__ void encode(const float *point, const float2 *bins, float *row, i32 &nearest, u32 q,
                                       u32 neighbours, float factor) {
    const float a = point[0], b = point[1];
    // Squared distances of bins lane, lane + 32, ..; weights once they are taken.
    float distance[EACH], weight[EACH];
#pragma unroll
    for (int k = 0; k < EACH; k++) {
        const u32 bin = 32 * k + lane_id();
        const float da = bin < q ? a - bins[bin].x : 0.0f, db = bin < q ? b - bins[bin].y : 0.0f;
        // Each product rounded: bins that are equally near stay so.
        distance[k] = bin < q ? __fadd_rn(__fmul_rn(da, da), __fmul_rn(db, db)) : INF;
        weight[k] = 0.0f;
    }
    float first = 0.0f, total = 0.0f;
    for (u32 taken = 0; taken < neighbours; taken++) {
        float best = INF;
        u32 at = q;
#pragma unroll
        for (int k = 0; k < EACH; k++)
            if (distance[k] < best) best = distance[k], at = 32 * k + lane_id();
#pragma unroll
        for (int step = 16; step > 0; step /= 2) {
            const float other = __shfl_xor_sync(ALL_LANES, best, step);
            const u32 there = __shfl_xor_sync(ALL_LANES, at, step);
            if (other < best || (other == best && there < at)) best = other, at = there;
        }
        if (taken == 0) {
            first = best;
            if (lane_id() == 0) nearest = i32(at < q ? at : 0);
        }
        // Relative to the nearest, so that points far from all bins do not underflow.
        const float w = expf((best - first) * factor);
        total += w;
#pragma unroll
        for (int k = 0; k < EACH; k++)
            if (at == 32 * k + lane_id()) distance[k] = INF, weight[k] = w;
    }
#pragma unroll
    for (int k = 0; k < EACH; k++) {
        const u32 bin = 32 * k + lane_id();
        if (bin < q) row[bin] = weight[k] / total;
    }
}

// points: [n, 2], centres: [q, 2], targets: [n, q], nearest: [n]; 1 <= neighbours <= q <= 512, factor = -1 / (2 sigma^2)
KERNEL __launch_bounds__(THREADS) color_soft_encode(const float *points, const float *centres, float *targets,
                                                    i32 *nearest, u32 n, u32 q, u32 neighbours, float factor) {
    __shared__ float2 bins[MOST_BINS];
    __shared__ float point[2 * WARPS], rows[WARPS * MOST_BINS];
    __shared__ i32 bests[WARPS];
    const u64 block = u64(blockIdx.x) * WARPS; // its first point
    const u32 count = min(WARPS, n - u32(block));
    for (u32 i = threadIdx.x; i < 2 * q; i += THREADS) (&bins[0].x)[i] = centres[i];
    if (threadIdx.x < 2 * count) point[threadIdx.x] = points[2 * block + threadIdx.x];
    __syncthreads();
    if (warp_id() < count) encode(point + 2 * warp_id(), bins, rows + warp_id() * q, bests[warp_id()], q, neighbours, factor);
    __syncthreads();
    // The rows of a block are one run, which starts at a sector: 8 rows are whole ones.
    for (u32 i = threadIdx.x; i < count * q; i += THREADS) targets[block * q + i] = rows[i];
    if (threadIdx.x < count) nearest[block + threadIdx.x] = bests[threadIdx.x];
}

// points: [images, pixels, 2], nearest, out: [images, pixels], weights: [q], q at most MOST_BINS; a block has an image
KERNEL color_pixel_weights(const float *points, const i32 *nearest, const float *weights, float *out, u32 pixels, u32 q,
                           float least) {
    __shared__ float table[MOST_BINS];
    const u64 start = u64(blockIdx.x) * pixels;
    for (u32 i = threadIdx.x; i < q; i += blockDim.x) table[i] = weights[i];
    int coloured = 0;
    for (u32 i = threadIdx.x; i < 2 * pixels; i += blockDim.x) coloured |= fabsf(points[2 * start + i]) > least;
    coloured = __syncthreads_or(coloured); // every thread has looked at its part, and the table is there
    for (u32 i = threadIdx.x; i < pixels; i += blockDim.x) {
        const u32 bin = u32(nearest[start + i]);
        out[start + i] = bin >= q ? NOT_A_NUMBER : (coloured ? table[bin] : 0.0f);
    }
}
