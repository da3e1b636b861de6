// Softmax of rows of logits, its cross-entropy and the gradient of that. The softmax itself is in memory only where it
// is what was asked for: cross-entropy keeps one number a row, the log-sum-exp, from forward to backward.
//
// Short rows belong to a warp, long ones to a block. Each thread takes packs of 16 bytes, a team's width apart, and
// keeps sums relative to the largest logit that it has seen; one exchange between the threads of a row puts them
// together, in an order that depends on the number of classes alone. Where rows are not made of whole packs, packs are
// single elements. Logits are read once forward, and read once and written once backward (twice in rows whose
// log-sum-exp is large); soft targets are read once more backward, for their sum.

#include "common/element.cuh"
#include "common/reduce.cuh"

constexpr int MAX_WARPS = 32;
#define INF __uint_as_float(0x7f800000u)
#define NOT_A_NUMBER __uint_as_float(0x7fffffffu)

// The threads that share a row.
struct Team {
    u64 row;
    int rank, size;
    bool aligned; // packs lie at multiples of 16 bytes
};

template <bool LONG> __device__ __forceinline__ Team team(u32 access) {
    const bool aligned = access == BY_PACK;
    if (LONG) return {blockIdx.x, int(threadIdx.x), int(blockDim.x), aligned};
    return {u64(blockIdx.x) * (blockDim.x / 32) + warp_id(), lane_id(), 32, aligned};
}

template <int W> __device__ __forceinline__ void load(const element *from, float (&v)[W], Team at) {
    if constexpr (W == 1)
        v[0] = to_float(*from);
    else
        load_pack(from, v, at.aligned);
}

template <int W> __device__ __forceinline__ void store(element *to, const float (&v)[W], Team at) {
    if constexpr (W == 1)
        from_float(v[0], *to);
    else
        store_pack(to, v, at.aligned);
}

// a b, where nothing times anything is nothing.
__device__ __forceinline__ float times(float a, float b) { return a == 0.0f ? 0.0f : a * b; }

// What has been seen of a row. `shift` below is max, or 0 while that is minus infinity.
struct Sums {
    float max = -INF;      // the largest logit x; NaN is passed over here and shows in rest
    float rest = 0.0f;     // sum of e^(x - shift) but for one of the largest: log1p of it keeps small losses accurate
    float weight = 0.0f;   // sum of the soft targets t
    float product = 0.0f;  // sum of t (x - shift), where t = 0 adds nothing whatever x is
    float level = 0.0f;    // sum of x - shift
    float count = 0.0f;    // logits

    __device__ __forceinline__ float shift() const { return max == -INF ? 0.0f : max; }

    // The one largest term that rest leaves out.
    __device__ __forceinline__ float own() const { return max == -INF ? 0.0f : 1.0f; }

    // Nothing but minus infinity was seen.
    __device__ __forceinline__ bool is_void() const { return max == -INF && rest == 0.0f; }

    // Relative to `top`, which is no less than max; its own term is in rest then.
    __device__ __forceinline__ void rebase(float top) {
        const float moved = shift() - (top == -INF ? 0.0f : top);
        rest = times(rest + own(), __expf(moved));
        product += times(weight, moved);
        level += times(count, moved);
        max = top;
    }

    // log sum e^(x - shift), for what is not void. With plus infinity it is NaN.
    __device__ __forceinline__ float log_sum() const { return max == INF ? NOT_A_NUMBER : log1pf(rest); }

    __device__ __forceinline__ float lse() const { return is_void() ? -INF : max + log_sum(); }
};

template <int W, bool SOFT> __device__ __forceinline__ void add(Sums &s, const float (&x)[W], const float (&t)[W]) {
    float top = x[0];
#pragma unroll
    for (int i = 1; i < W; i++) top = fmaxf(top, x[i]);
    bool larger = top > s.max;
    if (larger) s.rebase(top);
    const float shift = s.shift();
#pragma unroll
    for (int i = 0; i < W; i++) {
        const float difference = x[i] - shift;
        const bool own = larger && x[i] == top;
        if (own) larger = false;
        s.rest += own ? 0.0f : __expf(difference);
        s.level += difference;
        if (SOFT) {
            s.weight += t[i];
            s.product += times(t[i], difference);
        }
    }
    s.count += W;
}

// Sums over what one thread of a row's team reads.
template <int W, bool SOFT> __device__ Sums read_row(const element *x, const element *t, int v, Team at) {
    Sums s;
    for (int i = at.rank * W; i < v; i += at.size * W) {
        float logits[W], targets[W];
        load<W>(x + i, logits, at);
        if (SOFT) load<W>(t + i, targets, at);
        add<W, SOFT>(s, logits, targets);
    }
    return s;
}

// The sums of all lanes together, in every lane.
__device__ __forceinline__ Sums warp_merge(Sums s, bool soft) {
    const float top = warp_max(s.max);
    const u32 holders = __ballot_sync(ALL_LANES, s.max == top);
    if (lane_id() != __ffs(holders) - 1) s.rebase(top);
    s.rest = warp_sum(s.rest);
    s.level = warp_sum(s.level);
    s.count = warp_sum(s.count);
    if (soft) {
        s.weight = warp_sum(s.weight);
        s.product = warp_sum(s.product);
    }
    return s;
}

// The sums of a row's team together, in each of its threads. Once in a kernel.
template <bool LONG> __device__ __forceinline__ Sums team_merge(Sums s, bool soft) {
    s = warp_merge(s, soft);
    if (!LONG) return s;
    __shared__ float part[6][MAX_WARPS];
    if (lane_id() == 0) {
        const int w = warp_id();
        part[0][w] = s.max, part[1][w] = s.rest, part[2][w] = s.weight;
        part[3][w] = s.product, part[4][w] = s.level, part[5][w] = s.count;
    }
    __syncthreads(); // part is written
    Sums other;
    if (const int w = lane_id(); w < int(blockDim.x / 32)) {
        other.max = part[0][w], other.rest = part[1][w], other.weight = part[2][w];
        other.product = part[3][w], other.level = part[4][w], other.count = part[5][w];
    }
    return warp_merge(other, soft);
}

template <bool LONG, bool SOFT>
__device__ __forceinline__ Sums row_sums(const element *x, const element *t, int v, Team at, u32 access) {
    return team_merge<LONG>(access ? read_row<PACK, SOFT>(x, t, v, at) : read_row<1, SOFT>(x, t, v, at), SOFT);
}

// loss, lse: [m] of x: [m, v] with labels: [m] or soft targets t: [m, v], the other null. A label outside 0 to v is no
// address: the loss is NaN.
template <bool LONG>
__device__ void forward(const element *x, const i32 *labels, const element *t, float *loss, float *lse, u64 m, int v,
                        float smoothing, u32 access) {
    const Team at = team<LONG>(access);
    if (at.row >= m) return;
    x += at.row * v;
    const Sums s = t ? row_sums<LONG, true>(x, t + at.row * v, v, at, access)
                     : row_sums<LONG, false>(x, nullptr, v, at, access);
    if (at.rank != 0) return;
    lse[at.row] = s.lse();
    const float log_sum = s.log_sum();
    float value = 0.0f;
    if (t) {
        if (smoothing < 1.0f) value = (1.0f - smoothing) * (s.weight * log_sum - s.product);
    } else {
        const i32 label = labels[at.row];
        if (label < 0 || label >= v) {
            loss[at.row] = NOT_A_NUMBER;
            return;
        }
        if (smoothing < 1.0f) value = (1.0f - smoothing) * (log_sum + (s.shift() - to_float(x[label])));
    }
    if (smoothing > 0.0f) value += smoothing * (log_sum - s.level / float(v));
    loss[at.row] = s.is_void() ? 0.0f : value;
}

KERNEL ENTRY(softmax_xent_fwd_short)(const element *x, const i32 *labels, const element *t, float *loss, float *lse,
                                     u64 m, int v, float smoothing, u32 access) {
    forward<false>(x, labels, t, loss, lse, m, v, smoothing, access);
}

KERNEL __launch_bounds__(1024) ENTRY(softmax_xent_fwd_long)(const element *x, const i32 *labels, const element *t,
                                                            float *loss, float *lse, u64 m, int v, float smoothing,
                                                            u32 access) {
    forward<true>(x, labels, t, loss, lse, m, v, smoothing, access);
}

// What a row's gradient is made of: dx = dloss (total e^(x - shift) - even - keep t).
struct Gradient {
    float dloss, shift, total, even, keep;
    int label;
};

// Up to this magnitude a rounded lse leaves a relative error of at most 2^-20 in e^(x - lse). Beyond it the row's
// largest logit and its sum are found again, as on the CPU.
constexpr float ACCURATE_LSE = 16.0f;

template <int W, bool SOFT>
__device__ __forceinline__ void write_gradient(const element *x, const element *t, element *dx, int v, Team at,
                                               Gradient g) {
    for (int i = at.rank * W; i < v; i += at.size * W) {
        float logits[W], targets[W];
        load<W>(x + i, logits, at);
        if (SOFT) load<W>(t + i, targets, at);
#pragma unroll
        for (int k = 0; k < W; k++) {
            const float target = SOFT ? targets[k] : (i + k == g.label ? 1.0f : 0.0f);
            logits[k] = g.dloss * ((g.total * __expf(logits[k] - g.shift) - g.even) - g.keep * target);
        }
        store<W>(dx + i, logits, at);
    }
}

template <int W> __device__ __forceinline__ float read_weight(const element *t, int v, Team at) {
    float sum = 0.0f;
    for (int i = at.rank * W; i < v; i += at.size * W) {
        float targets[W];
        load<W>(t + i, targets, at);
#pragma unroll
        for (int k = 0; k < W; k++) sum += targets[k];
    }
    return sum;
}

// dx: [m, v] from dloss: [m], forward's arguments and its lse: [m]. A label outside 0 to v makes its row NaN.
template <bool LONG>
__device__ void backward(const float *dloss, const element *x, const i32 *labels, const element *t, const float *lse,
                         element *dx, u64 m, int v, float smoothing, u32 access) {
    const Team at = team<LONG>(access);
    if (at.row >= m) return;
    x += at.row * v, dx += at.row * v;
    const float keep = 1.0f - smoothing;
    Gradient g = {dloss[at.row], lse[at.row], keep + smoothing, smoothing / float(v), keep, -1};
    if (g.shift == -INF) g.dloss = g.shift = 0.0f; // nothing but minus infinity: no gradient
    float scale = 1.0f;
    if (fabsf(g.shift) > ACCURATE_LSE && fabsf(g.shift) < INF) {
        const Sums s = row_sums<LONG, false>(x, nullptr, v, at, access);
        g.shift = s.shift();
        scale = 1.0f / (1.0f + s.rest);
        g.total *= scale;
    }
    if (t) {
        t += at.row * v;
        float weight = warp_sum(access ? read_weight<PACK>(t, v, at) : read_weight<1>(t, v, at));
        if (LONG) {
            __shared__ float part[MAX_WARPS];
            if (lane_id() == 0) part[warp_id()] = weight;
            __syncthreads(); // part is written
            weight = warp_sum(lane_id() < int(blockDim.x / 32) ? part[lane_id()] : 0.0f);
        }
        g.total = scale * (keep * weight + smoothing);
        if (access) return write_gradient<PACK, true>(x, t, dx, v, at, g);
        return write_gradient<1, true>(x, t, dx, v, at, g);
    }
    g.label = labels[at.row];
    if (g.label < 0 || g.label >= v) g.dloss = NOT_A_NUMBER;
    if (access) return write_gradient<PACK, false>(x, t, dx, v, at, g);
    write_gradient<1, false>(x, t, dx, v, at, g);
}

KERNEL ENTRY(softmax_xent_bwd_short)(const float *dloss, const element *x, const i32 *labels, const element *t,
                                     const float *lse, element *dx, u64 m, int v, float smoothing, u32 access) {
    backward<false>(dloss, x, labels, t, lse, dx, m, v, smoothing, access);
}

KERNEL __launch_bounds__(1024) ENTRY(softmax_xent_bwd_long)(const float *dloss, const element *x, const i32 *labels,
                                                            const element *t, const float *lse, element *dx, u64 m,
                                                            int v, float smoothing, u32 access) {
    backward<true>(dloss, x, labels, t, lse, dx, m, v, smoothing, access);
}

template <int W> __device__ __forceinline__ void write_softmax(const element *x, element *y, int v, Team at, Sums s) {
    const float factor = s.is_void() ? 0.0f : (s.max == INF ? NOT_A_NUMBER : 1.0f / (1.0f + s.rest));
    const float shift = s.shift();
    for (int i = at.rank * W; i < v; i += at.size * W) {
        float logits[W];
        load<W>(x + i, logits, at);
#pragma unroll
        for (int k = 0; k < W; k++) logits[k] = __expf(logits[k] - shift) * factor;
        store<W>(y + i, logits, at);
    }
}

// y: [m, v], the softmax of each row of x: [m, v]. The second read of a row comes from cache.
template <bool LONG> __device__ void softmax(const element *x, element *y, u64 m, int v, u32 access) {
    const Team at = team<LONG>(access);
    if (at.row >= m) return;
    x += at.row * v, y += at.row * v;
    const Sums s = row_sums<LONG, false>(x, nullptr, v, at, access);
    if (access) return write_softmax<PACK>(x, y, v, at, s);
    write_softmax<1>(x, y, v, at, s);
}

KERNEL ENTRY(softmax_xent_softmax_short)(const element *x, element *y, u64 m, int v, u32 access) {
    softmax<false>(x, y, m, v, access);
}

KERNEL __launch_bounds__(1024) ENTRY(softmax_xent_softmax_long)(const element *x, element *y, u64 m, int v,
                                                                u32 access) {
    softmax<true>(x, y, m, v, access);
}
