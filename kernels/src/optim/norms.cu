// Norms over many tensors: of gradients, together and in sets, and of each parameter and its gradient for LARS.
//
// First a block sums the squares of one chunk in float64, so that elements of 1e30 do not overflow, and leaves one
// partial sum; then partial sums are added in an order that depends on the sizes alone (those of LARS by the blocks that
// update), and nothing is added atomically: the same bits every time. In memory there are only the partial sums, one or
// two float64 a chunk.

#include "common/reduce.cuh"
#include "common/step_numbers.cuh"

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

// Tensors whose norm is one: their partial sums, and their places in `order`.
struct alignas(16) Set {
    u32 first_chunk, chunks;
    u32 first, count;
};

// A block a set: norm = sqrt(sum of its partial sums), and for each of its tensors scale = min(1, limit / (norm + 1e-6)).
// A norm that is not a number clips nothing. Set 0 is of all partial sums; its norm is kept, and where it is not one that
// clips its count is 0. partials: [chunks], sets: [blocks], order: [slots], norm: [1], scales: [slots]
KERNEL __launch_bounds__(THREADS) optim_norms(const double *partials, const Set *sets, const u32 *order, float *norm,
                                              float *scales, float limit) {
    __shared__ double part[WARPS];
    __shared__ Set its; // read once a block: its sector is not filled
    if (threadIdx.x == 0) its = sets[blockIdx.x];
    __syncthreads(); // it is there
    const Set set = its;
    double sum = 0.0;
    for (u32 i = threadIdx.x; i < set.chunks; i += THREADS) sum += partials[set.first_chunk + i];
    const float root = float(sqrt(block_sum<WARPS>(sum, part)));
    if (blockIdx.x == 0 && threadIdx.x == 0) *norm = root;
    if (set.count == 0) return;
    const float scale = fminf(limit / (root + 1e-6f), 1.0f);
    for (u32 i = threadIdx.x; i < set.count; i += THREADS) scales[order[set.first + i]] = scale;
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

// partials[chunk] = (sum of w^2, sum of (scale g + decay w)^2) for chunks of slots that adapt; in lightly's LARS the
// decay is left out. partials: [chunks]
KERNEL __launch_bounds__(THREADS) optim_lars_squares(const Slot *slots, const Chunk *chunks, Numbers numbers,
                                                      double2 *partials, u32 variant) {
    __shared__ double part[WARPS];
    const Chunk chunk = chunks[blockIdx.x];
    const Slot slot = slots[chunk.slot];
    if (!(slot.flags & ADAPT)) return;
    const float decay = variant == LIGHTLY ? 0.0f : numbers.decay(slot), scale = numbers.factor(chunk.slot);
    double2 sums = make_double2(0.0, 0.0);
    if (slot.flags & GRADIENT_BF16)
        both<bf16>(slot, chunk.index, scale, decay, sums);
    else
        both<float>(slot, chunk.index, scale, decay, sums);
    double w = block_sum<WARPS>(sums.x, part);
    double u = block_sum<WARPS>(sums.y, part);
    if (threadIdx.x == 0) partials[blockIdx.x] = make_double2(w, u);
}
