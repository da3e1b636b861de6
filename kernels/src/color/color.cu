// Colour for colorization: sRGB to Lab, soft targets over bins of the plane a, b, and the weight of each pixel. All float32.
//
// lab: a thread has a pixel. soft_encode: a warp has a point and keeps its distances to all bins in registers, 16 a lane; it
// takes the nearest of them one after another, and writes its row of targets, zeros included, at once. pixel_weights: a
// block has an image, looks through it for colour, then writes its weights. Only its threads wait for each other.

#include "common/reduce.cuh"

constexpr u32 WARPS = 8;
constexpr int EACH = 16; // bins of a lane: 512 in all
#define INF __uint_as_float(0x7f800000u)
#define NOT_A_NUMBER __uint_as_float(0x7fffffffu)

// The light that an sRGB value stands for.
__device__ __forceinline__ float linear(float v) {
    return v > 0.04045f ? powf((v + 0.055f) / 1.055f, 2.4f) : v / 12.92f;
}

__device__ __forceinline__ float root(float t) { return t > 0.008856f ? cbrtf(t) : 7.787f * t + 16.0f / 116.0f; }

// rgb, lab: [pixels, 3]
KERNEL color_rgb_to_lab(const float *rgb, float *lab, u32 pixels) {
    const u32 pixel = blockIdx.x * blockDim.x + threadIdx.x;
    if (pixel >= pixels) return;
    const u64 at = 3 * u64(pixel);
    const float r = linear(rgb[at]), g = linear(rgb[at + 1]), b = linear(rgb[at + 2]);
    // XYZ over white's (D65, 2 degrees).
    const float fx = root(float(0.412453 / 0.95047) * r + float(0.357580 / 0.95047) * g + float(0.180423 / 0.95047) * b);
    const float fy = root(0.212671f * r + 0.715160f * g + 0.072169f * b);
    const float fz = root(float(0.019334 / 1.08883) * r + float(0.119193 / 1.08883) * g + float(0.950227 / 1.08883) * b);
    lab[at] = 116.0f * fy - 16.0f;
    lab[at + 1] = 500.0f * (fx - fy);
    lab[at + 2] = 200.0f * (fy - fz);
}

// points: [n, 2], centres: [q, 2], targets: [n, q], nearest: [n]; 1 <= neighbours <= q <= 512, factor = -1 / (2 sigma^2)
KERNEL __launch_bounds__(32 * WARPS) color_soft_encode(const float *points, const float *centres, float *targets,
                                                       i32 *nearest, u32 n, u32 q, u32 neighbours, float factor) {
    const u32 i = blockIdx.x * WARPS + warp_id();
    if (i >= n) return;
    const float a = points[2 * u64(i)], b = points[2 * u64(i) + 1];
    // Squared distances of bins lane, lane + 32, ..; weights once they are taken.
    float distance[EACH], weight[EACH];
#pragma unroll
    for (int k = 0; k < EACH; k++) {
        const u32 bin = 32 * k + lane_id();
        const float da = bin < q ? a - centres[2 * bin] : 0.0f, db = bin < q ? b - centres[2 * bin + 1] : 0.0f;
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
            if (lane_id() == 0) nearest[i] = i32(at < q ? at : 0);
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
        if (bin < q) targets[u64(i) * q + bin] = weight[k] / total;
    }
}

// points: [images, pixels, 2], nearest, out: [images, pixels], weights: [q]; a block has an image
KERNEL color_pixel_weights(const float *points, const i32 *nearest, const float *weights, float *out, u32 pixels, u32 q,
                           float least) {
    const u64 start = u64(blockIdx.x) * pixels;
    int coloured = 0;
    for (u32 i = threadIdx.x; i < 2 * pixels; i += blockDim.x) coloured |= fabsf(points[2 * start + i]) > least;
    coloured = __syncthreads_or(coloured); // every thread has looked at its part
    for (u32 i = threadIdx.x; i < pixels; i += blockDim.x) {
        const u32 bin = u32(nearest[start + i]);
        out[start + i] = bin >= q ? NOT_A_NUMBER : (coloured ? weights[bin] : 0.0f);
    }
}
