// One optimiser step over all parameters in one launch.
//
// A block updates one chunk of one parameter: each thread reads the chunk's value, gradient and moments in quads of
// four elements, 16 bytes of float32, and writes value and moments back, and in the same pass the bfloat16 copy of the
// value and its moving average where there are any. Nothing else is read or written. Where an address does not allow
// quads, and at the end of a ragged chunk, threads go element by element. In AdamW and LARS the block's threads wait for
// the first warp, which makes the factors of the step (in LARS from the partial sums of norms.cu, every block of a slot
// from the same ones in the same order); otherwise they do not wait for each other. Blocks of slots that wait for their
// first step do nothing.
//
// Arithmetic is in float32 with the CPU's formulas in the CPU's order (kernels/src/optim/update.rs), and this file is
// compiled without contraction, so that both give the same bits.

#include "common/reduce.cuh"
#include "common/step_numbers.cuh"

// What the moving average of the value keeps and takes: 1 - decay is rounded once.
struct Average {
    float decay, rest;
    __device__ explicit Average(float decay) : decay(decay), rest(float(1.0 - double(decay))) {}
    __device__ __forceinline__ float operator()(float average, float value) const {
        return decay * average + rest * value;
    }
};

// How a chunk is swept.
struct Way {
    bool fresh; // moments are zero and not read
    bool still; // the value stays
};

// One chunk of a slot whose gradient is of type Gradient. `update(w, g, m, v)` changes a value and its MOMENTS moments.
template <int MOMENTS, typename Gradient, typename Update>
__device__ __forceinline__ void sweep_of(const Slot &slot, u32 index, Way way, Average average, Update update) {
    const u64 start = u64(index) * CHUNK;
    const u32 count = elements_of(slot, index);
    const Gradient *gradient = static_cast<const Gradient *>(slot.gradient) + start;
    float *value = slot.value + start;
    float *first = slot.first + start, *second = slot.second + start;
    bf16 *low = slot.low + start;
    float *mean = slot.average + start;
    const u32 quads = slot.flags & ALIGNED ? count / QUAD : 0;
    for (u32 i = threadIdx.x * QUAD; i < quads * QUAD; i += THREADS * QUAD) {
        float w[QUAD], g[QUAD], m[QUAD] = {}, v[QUAD] = {}, a[QUAD] = {};
        load_few(value + i, w);
        load_few(gradient + i, g);
        if (MOMENTS > 0 && !way.fresh) load_few(first + i, m);
        if (MOMENTS > 1) load_few(second + i, v);
        if (slot.average) load_few(mean + i, a);
#pragma unroll
        for (u32 j = 0; j < QUAD; j++) {
            const float kept = w[j];
            update(w[j], g[j], m[j], v[j]);
            if (way.still) w[j] = kept;
            a[j] = average(a[j], w[j]);
        }
        store_few(value + i, w);
        if (MOMENTS > 0) store_few(first + i, m);
        if (MOMENTS > 1) store_few(second + i, v);
        if (slot.low) store_few(low + i, w);
        if (slot.average) store_few(mean + i, a);
    }
    for (u32 i = quads * QUAD + threadIdx.x; i < count; i += THREADS) {
        float w = value[i], g = to_float(gradient[i]);
        float m = MOMENTS > 0 && !way.fresh ? first[i] : 0.0f;
        float v = MOMENTS > 1 ? second[i] : 0.0f;
        const float kept = w;
        update(w, g, m, v);
        if (way.still) w = kept;
        value[i] = w;
        if (MOMENTS > 0) first[i] = m;
        if (MOMENTS > 1) second[i] = v;
        if (slot.low) from_float(w, low[i]);
        if (slot.average) mean[i] = average(mean[i], w);
    }
}

template <int MOMENTS, typename Update>
__device__ __forceinline__ void sweep(const Slot &slot, u32 index, Way way, Average average, Update update) {
    if (slot.flags & GRADIENT_BF16)
        sweep_of<MOMENTS, bf16>(slot, index, way, average, update);
    else
        sweep_of<MOMENTS, float>(slot, index, way, average, update);
}

// v = momentum v + u, w -= rate v or, with Nesterov's momentum, rate (u + momentum v); u = scale g + decay w.
KERNEL __launch_bounds__(THREADS, 6) optim_sgd(const Slot *slots, const Chunk *chunks, Numbers numbers, float momentum,
                                             u32 nesterov) {
    const Chunk chunk = chunks[blockIdx.x];
    const Slot slot = slots[chunk.slot];
    const bool waits = numbers.waits(slot);
    if (waits && slot.flags & UNTOUCHED) return;
    const float step = numbers.rate(waits) * slot.rate_scale, factor = numbers.factor(chunk.slot);
    const float decay = numbers.decay(slot);
    const Way way = {numbers.own_steps(slot) == 0, waits};
    sweep<1>(slot, chunk.index, way, Average(numbers.average_decay.get()), [&](float &w, float g, float &v, float &) {
        float u = g * factor + decay * w;
        v = momentum * v + u;
        w -= step * (nesterov ? u + momentum * v : v);
    });
}

// The share of a slot's norm in its LARS step, by the first warp: trust norm(w) / norm(u), or 1 where one is zero. lightly
// adds the decay of the norm, and 1e-8, to the norm of the gradient, and takes no decay while a norm is zero.
__device__ __forceinline__ float lars_ratio(const Slot &slot, const double2 *partials, float trust, u32 variant,
                                            float &decay) {
    double w = 0.0, u = 0.0;
    for (u32 i = lane_id(); i < slot.chunks; i += 32) {
        double2 sums = partials[slot.first_chunk + i];
        w += sums.x, u += sums.y;
    }
    w = sqrt(warp_sum(w)), u = sqrt(warp_sum(u));
    if (w > 0.0 && u > 0.0) return float(double(trust) * w / (u + (variant == LIGHTLY ? double(decay) * w + 1e-8 : 0.0)));
    if (variant == LIGHTLY) decay = 0.0f;
    return 1.0f;
}

// v = momentum v + inside u, w -= outside v; u = scale g + decay w. partials: [chunks], (sum of w^2, sum of u^2) of slots
// that adapt
KERNEL __launch_bounds__(THREADS, 6) optim_lars(const Slot *slots, const Chunk *chunks, Numbers numbers,
                                              const double2 *partials, float momentum, float trust, u32 variant) {
    struct Factors {
        float inside, outside, decay;
    };
    __shared__ Factors made;
    const Chunk chunk = chunks[blockIdx.x];
    const Slot slot = slots[chunk.slot];
    const bool waits = numbers.waits(slot);
    if (waits && slot.flags & UNTOUCHED) return;
    if (warp_id() == 0) {
        const float rate = numbers.rate(waits) * slot.rate_scale;
        float decay = numbers.decay(slot), ratio = 1.0f;
        if (slot.flags & ADAPT && (variant != LIGHTLY || decay != 0.0f))
            ratio = lars_ratio(slot, partials, trust, variant, decay);
        if (lane_id() == 0) {
            made.inside = variant == SIMCLR ? rate * ratio : ratio;
            made.outside = variant == SIMCLR ? 1.0f : rate;
            made.decay = decay;
        }
    }
    __syncthreads(); // the factors are made
    const Factors f = made;
    const float factor = numbers.factor(chunk.slot);
    const Way way = {false, waits};
    sweep<1>(slot, chunk.index, way, Average(numbers.average_decay.get()), [&](float &w, float g, float &v, float &) {
        float u = g * factor + f.decay * w;
        v = momentum * v + f.inside * u;
        w -= f.outside * v;
    });
}

// beta^n by repeated squaring: what is lost, n roundings of a power that is nearly zero when n is large, is far below
// the float32 rounding of 1 - beta^n.
__device__ __forceinline__ double power(double beta, u64 n) {
    double result = 1.0;
    for (; n; n >>= 1, beta *= beta)
        if (n & 1) result *= beta;
    return result;
}

// w = keep w - rate m / (sqrt(v) root + eps); m and v are moving averages of g and g^2, g multiplied by the slot's factor.
KERNEL __launch_bounds__(THREADS, 5) optim_adamw(const Slot *slots, const Chunk *chunks, Numbers numbers, float beta1,
                                               float beta2, float eps) {
    struct Factors {
        float keep, rate, root;
    };
    __shared__ Factors made;
    const Chunk chunk = chunks[blockIdx.x];
    const Slot slot = slots[chunk.slot];
    const bool waits = numbers.waits(slot);
    if (waits && slot.flags & UNTOUCHED) return;
    if (threadIdx.x == 0) {
        const u64 step = numbers.own_steps(slot) + 1;
        const double scaled = double(numbers.rate(waits)) * double(slot.rate_scale);
        made.keep = float(1.0 - scaled * double(numbers.decay(slot)));
        made.rate = float(scaled / (1.0 - power(beta1, step)));
        made.root = float(1.0 / sqrt(1.0 - power(beta2, step)));
    }
    __syncthreads(); // the factors are made
    const Factors f = made;
    const float factor = numbers.factor(chunk.slot);
    const float rest1 = float(1.0 - double(beta1)), rest2 = float(1.0 - double(beta2));
    const Way way = {false, waits};
    sweep<2>(slot, chunk.index, way, Average(numbers.average_decay.get()), [&](float &w, float g, float &m, float &v) {
        g *= factor;
        m = beta1 * m + rest1 * g;
        v = beta2 * v + rest2 * (g * g);
        w = f.keep * w - f.rate * (m / (sqrtf(v) * f.root + eps));
    });
}

// value = decay value + (1 - decay) gradient: the slot's gradient is the tensor that is followed.
KERNEL __launch_bounds__(THREADS, 6) optim_ema(const Slot *slots, const Chunk *chunks, Number decay) {
    const Chunk chunk = chunks[blockIdx.x];
    const Slot slot = slots[chunk.slot];
    const Average average(decay.get());
    sweep<0>(slot, chunk.index, {false, false}, average,
             [&](float &w, float g, float &, float &) { w = average(w, g); });
}
