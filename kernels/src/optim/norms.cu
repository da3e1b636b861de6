// Norms over many tensors: of all gradients together, and of each parameter and its gradient for LARS.
//
// First a block sums the squares of one chunk in float64, so that elements of 1e30 do not overflow, and leaves one
// partial sum; then partial sums are added in an order that depends on the sizes alone, and nothing is added
// atomically: the same bits every time. In memory there are only the partial sums, one or two float64 a chunk.

#include "common/reduce.cuh"
#include "common/tensor_list.cuh"

constexpr int WARPS = THREADS / 32;

// The sum over the first `n` elements of `x` of f(element), in every thread. Whole quads are read by four at once.
template <typename T, typename F>
__device__ __forceinline__ double sum_over(const T *x, u32 n, bool aligned, double *part, F f) {
    constexpr u32 DEEP = 4; // quads that a thread asks for before it uses them
    double sum = 0.0;
    const u32 deep = aligned ? n / (DEEP * QUAD * THREADS) * (DEEP * QUAD * THREADS) : 0;
    for (u32 i = threadIdx.x * QUAD; i < deep; i += DEEP * QUAD * THREADS) {
        float v[DEEP][QUAD];
#pragma unroll
        for (u32 d = 0; d < DEEP; d++) load_few(x + i + d * QUAD * THREADS, v[d]);
#pragma unroll
        for (u32 d = 0; d < DEEP; d++)
#pragma unroll
            for (u32 j = 0; j < QUAD; j++) sum += f(v[d][j]);
    }
    const u32 quads = aligned ? n / QUAD * QUAD : 0;
    for (u32 i = deep + threadIdx.x * QUAD; i < quads; i += QUAD * THREADS) {
        float v[QUAD];
        load_few(x + i, v);
#pragma unroll
        for (u32 j = 0; j < QUAD; j++) sum += f(v[j]);
    }
    for (u32 i = quads + threadIdx.x; i < n; i += THREADS) sum += f(to_float(x[i]));
    return block_sum<WARPS>(sum, part);
}

__device__ __forceinline__ double square(double x) { return x * x; }

// partials[chunk] = sum of the gradient's squares; partials: [chunks]
KERNEL __launch_bounds__(THREADS) optim_squares(const Slot *slots, const Chunk *chunks, double *partials) {
    __shared__ double part[WARPS];
    const Chunk chunk = chunks[blockIdx.x];
    const Slot slot = slots[chunk.slot];
    const u64 start = u64(chunk.index) * CHUNK;
    const u32 n = elements_of(slot, chunk.index);
    const bool aligned = slot.flags & ALIGNED;
    auto f = [](float x) { return square(x); };
    double sum = slot.flags & GRADIENT_BF16
                     ? sum_over(static_cast<const bf16 *>(slot.gradient) + start, n, aligned, part, f)
                     : sum_over(static_cast<const float *>(slot.gradient) + start, n, aligned, part, f);
    if (threadIdx.x == 0) partials[blockIdx.x] = sum;
}

// norm = sqrt(sum of partials), by one block; partials: [n], norm: [1]
KERNEL __launch_bounds__(THREADS) optim_norm(const double *partials, float *norm, u64 n) {
    __shared__ double part[WARPS];
    double sum = 0.0;
    for (u64 i = threadIdx.x; i < n; i += THREADS) sum += partials[i];
    sum = block_sum<WARPS>(sum, part);
    if (threadIdx.x == 0) *norm = float(sqrt(sum));
}

// Adds the squares of one chunk's values and of its decayed gradients, scale g + decay w, to `sums`.
template <typename Gradient>
__device__ __forceinline__ void both(const Slot &slot, u32 index, float scale, float decay, double2 &sums) {
    const u64 start = u64(index) * CHUNK;
    const u32 n = elements_of(slot, index);
    const float *value = slot.value + start;
    const Gradient *gradient = static_cast<const Gradient *>(slot.gradient) + start;
    const u32 quads = slot.flags & ALIGNED ? n / QUAD * QUAD : 0;
#pragma unroll 2
    for (u32 i = threadIdx.x * QUAD; i < quads; i += QUAD * THREADS) {
        float w[QUAD], g[QUAD];
        load_few(value + i, w);
        load_few(gradient + i, g);
#pragma unroll
        for (u32 j = 0; j < QUAD; j++) {
            sums.x += square(w[j]);
            sums.y += square(g[j] * scale + decay * w[j]);
        }
    }
    for (u32 i = quads + threadIdx.x; i < n; i += THREADS) {
        float w = value[i];
        sums.x += square(w);
        sums.y += square(to_float(gradient[i]) * scale + decay * w);
    }
}

// LarsVariant, as cuda.rs numbers it.
constexpr u32 SIMCLR = 0, LIGHTLY = 2;

// partials[chunk] = (sum of w^2, sum of (scale g + decay w)^2) for chunks of slots that adapt; in lightly's LARS the
// decay is left out. partials: [chunks]
KERNEL __launch_bounds__(THREADS) optim_lars_squares(const Slot *slots, const Chunk *chunks, double2 *partials,
                                                      Number scale, u32 variant) {
    __shared__ double part[WARPS];
    const Chunk chunk = chunks[blockIdx.x];
    const Slot slot = slots[chunk.slot];
    if (!(slot.flags & ADAPT)) return;
    const float decay = variant == LIGHTLY ? 0.0f : slot.weight_decay;
    double2 sums = make_double2(0.0, 0.0);
    if (slot.flags & GRADIENT_BF16)
        both<bf16>(slot, chunk.index, scale.get(), decay, sums);
    else
        both<float>(slot, chunk.index, scale.get(), decay, sums);
    double w = block_sum<WARPS>(sums.x, part);
    double u = block_sum<WARPS>(sums.y, part);
    if (threadIdx.x == 0) partials[blockIdx.x] = make_double2(w, u);
}

// As in update.cu.
struct alignas(16) LarsFactors {
    float inside, outside, decay, unused;
};

// The factors of each slot, a warp a slot. partials: [chunks], factors: [n]
KERNEL __launch_bounds__(THREADS) optim_lars_factors(const Slot *slots, const double2 *partials, LarsFactors *factors,
                                                      u32 n, Number rate_in, float trust, u32 variant) {
    const u32 at = blockIdx.x * WARPS + warp_id();
    if (at >= n) return;
    const Slot slot = slots[at];
    const float rate = rate_in.get() * slot.rate_scale;
    float decay = slot.weight_decay, ratio = 1.0f;
    if (slot.flags & ADAPT) {
        double w = 0.0, u = 0.0;
        for (u32 i = lane_id(); i < slot.chunks; i += 32) {
            double2 sums = partials[slot.first_chunk + i];
            w += sums.x, u += sums.y;
        }
        w = sqrt(warp_sum(w)), u = sqrt(warp_sum(u));
        if (w > 0.0 && u > 0.0) {
            // lightly adds the decay of the norm, and 1e-8, to the norm of the gradient.
            double added = variant == LIGHTLY ? double(decay) * w + 1e-8 : 0.0;
            ratio = float(double(trust) * w / (u + added));
        } else if (variant == LIGHTLY) {
            decay = 0.0f;
        }
    }
    if (lane_id() != 0) return;
    if (variant == SIMCLR)
        factors[at] = {rate * ratio, 1.0f, decay, 0.0f};
    else
        factors[at] = {ratio, rate, decay, 0.0f};
}
