// Gradients of batch normalisation of x [rows, C]. g = dy where y > 0 (dy without a ReLU) is stored only where it is
// the residual's gradient.
//
//   norm_batch_bwd_sums     sum of g and of g (x - mean), of each channel in each block's rows -> partials
//   norm_batch_bwd_finish   partials -> dweight, dbias and the map (mean, scale, slope, average) of each channel
//   norm_batch_bwd_apply    dx = (g - average - (x - mean) * slope) * scale, or g * scale of constant statistics
//
// A thread of the first and the last goes down the rows with the channels of one pack (see columns.cuh). Threads wait
// for each other once, when a block's rows are summed, and when partials are.

#include "common/columns.cuh"
#include "common/normalise.cuh"

// Rows that a thread has in flight, and whose sums are in float32.
constexpr int AHEAD = 4;

// g from dy and the result of the ReLU.
__device__ __forceinline__ float masked(float dy, float y) { return y > 0.0f ? dy : 0.0f; }

// What tells where the ReLU has let values through: nothing (there is none, or g is masked already), its result y, or x,
// of which the forward pass's map makes y again.
enum Mask { NO_MASK, MASK_OF_Y, MASK_OF_X };

template <Mask MASK, bool STORE>
__device__ __forceinline__ void sums(const element *__restrict__ dy, const element *__restrict__ x,
                                     const element *__restrict__ y, const float *mean_in, const float *forward,
                                     u32 stride, element *__restrict__ g_out, double *__restrict__ partials,
                                     const Columns &c, bool aligned, ColumnParts &parts) {
    const Column at = column_of(c);
    double gradient[PACK] = {}, product[PACK] = {};
    if (at.inside) {
        float mean[PACK];
        load_channels(mean_in, 0.0f, c, at.pack, aligned, mean);
        float scale[PACK], offset[PACK];
        if (MASK == MASK_OF_X) {
            load_channels(forward + stride, 0.0f, c, at.pack, true, scale);
            load_channels(forward + 2 * stride, 0.0f, c, at.pack, true, offset);
        }
        const auto kept = [&](float g, float x, float y, int i) {
            if (MASK == NO_MASK) return g;
            return masked(g, MASK == MASK_OF_Y ? y : rounded(normalised(x, mean[i], scale[i], offset[i])));
        };
        const u64 step = u64(blockDim.y) * c.packs * PACK;
        u64 row = at.first;
        for (; row + (AHEAD - 1) * blockDim.y < at.whole_end; row += AHEAD * blockDim.y) {
            const u64 start = pack_start(c, row, at.pack);
            uint4 dy_bits[AHEAD], x_bits[AHEAD], y_bits[AHEAD];
#pragma unroll
            for (int r = 0; r < AHEAD; r++) {
                dy_bits[r] = load_bits(dy + start + r * step, PACK, aligned);
                x_bits[r] = load_bits(x + start + r * step, PACK, aligned);
                if (MASK == MASK_OF_Y) y_bits[r] = load_bits(y + start + r * step, PACK, aligned);
            }
            float s[PACK] = {}, p[PACK] = {};
#pragma unroll
            for (int r = 0; r < AHEAD; r++) {
                float g[PACK], v[PACK], result[PACK] = {};
                unpack(dy_bits[r], g);
                unpack(x_bits[r], v);
                if (MASK == MASK_OF_Y) unpack(y_bits[r], result);
#pragma unroll
                for (int i = 0; i < PACK; i++) {
                    g[i] = kept(g[i], v[i], result[i], i);
                    s[i] += g[i];
                    p[i] += g[i] * (v[i] - mean[i]);
                }
                if (STORE) store_part(g_out + start + r * step, PACK, aligned, g);
            }
#pragma unroll
            for (int i = 0; i < PACK; i++) {
                gradient[i] += double(s[i]);
                product[i] += double(p[i]);
            }
        }
        for (; row < at.end; row += blockDim.y) {
            const u64 start = pack_start(c, row, at.pack);
            const int count = pack_count(c, start);
            float g[PACK], v[PACK], result[PACK] = {};
            load_part(dy + start, count, aligned && count == PACK, g);
            load_part(x + start, count, aligned && count == PACK, v);
            if (MASK == MASK_OF_Y) load_part(y + start, count, aligned && count == PACK, result);
#pragma unroll
            for (int i = 0; i < PACK; i++) g[i] = kept(g[i], v[i], result[i], i);
            if (STORE) store_part(g_out + start, count, aligned && count == PACK, g);
#pragma unroll
            for (int i = 0; i < PACK; i++) {
                gradient[i] += double(g[i]);
                product[i] += i < count ? double(g[i] * (v[i] - mean[i])) : 0.0;
            }
        }
    }
    sum_columns(gradient, product, parts, [&](int i, double s, double p) {
        if (!at.inside) return;
        partials[partial_at(c, blockIdx.x, 0, i, at.pack)] = s;
        partials[partial_at(c, blockIdx.x, 1, i, at.pack)] = p;
    });
}

// dy, x, y (null without a ReLU, or where there is the forward map), g (null if it is not wanted): [rows, C]; mean: [C];
// forward (or null): [3, stride], with a ReLU and without a residual, whose gradient g would be.
KERNEL __launch_bounds__(COLUMN_THREADS, 2)
ENTRY(norm_batch_bwd_sums)(const element *dy, const element *x, const element *y, const float *mean,
                           const float *forward, element *g, double *partials, Columns c, u32 stride, u32 aligned) {
    __shared__ ColumnParts parts;
    if (y && g) return sums<MASK_OF_Y, true>(dy, x, y, mean, forward, stride, g, partials, c, aligned, parts);
    if (y) return sums<MASK_OF_Y, false>(dy, x, y, mean, forward, stride, g, partials, c, aligned, parts);
    if (forward) return sums<MASK_OF_X, false>(dy, x, y, mean, forward, stride, g, partials, c, aligned, parts);
    sums<NO_MASK, false>(dy, x, y, mean, forward, stride, g, partials, c, aligned, parts);
}

// dweight = sum of g (x - mean) / deviation, dbias = sum of g: [C]. The map: mean, scale, slope, average at 0 .. 3
// times `stride`.
KERNEL __launch_bounds__(FINISH *FINISH)
ENTRY(norm_batch_bwd_finish)(const double *__restrict__ partials, const float *mean, const float *variance,
                             const float *weight, float *dweight, float *dbias, float *map, Columns c, u64 blocks,
                             u32 stride, float eps) {
    __shared__ double part[FINISH][FINISH + 1];
    const u32 channel = blockIdx.x * FINISH + threadIdx.x;
    double s = 0.0, p = 0.0;
    over_partials(c, blocks, min(channel, c.channels - 1), [&](u64 block, u32 e) {
        s += partials[partial_at(c, block, 0, e % PACK, e / PACK)];
        p += partials[partial_at(c, block, 1, e % PACK, e / PACK)];
    });
    const double gradient = finish_sum(s, part), product = finish_sum(p, part);
    if (threadIdx.y > 0 || channel >= c.channels) return;
    const double inverse = 1.0 / sqrt(double(variance[channel]) + double(eps));
    const double rows = double(c.elements / c.channels);
    dweight[channel] = float(product * inverse);
    dbias[channel] = float(gradient);
    map[channel] = mean[channel];
    map[stride + channel] = float((weight ? double(weight[channel]) : 1.0) * inverse);
    map[2 * stride + channel] = float(inverse * inverse * product / rows);
    map[3 * stride + channel] = float(gradient / rows);
}

// The subtraction comes before the scaling: in g * scale + offset rounded products would not cancel where they should.
template <Mask MASK, bool TRAINING>
__device__ __forceinline__ void apply(const element *__restrict__ g_in, const element *__restrict__ x,
                                      const element *__restrict__ y, const float *__restrict__ map,
                                      const float *__restrict__ forward, element *__restrict__ dx, const Columns &c,
                                      u32 stride, bool aligned) {
    const Column at = column_of(c);
    if (!at.inside) return;
    float mean[PACK], scale[PACK], slope[PACK], average[PACK];
    load_channels(map + stride, 0.0f, c, at.pack, true, scale);
    if (TRAINING) {
        load_channels(map, 0.0f, c, at.pack, true, mean);
        load_channels(map + 2 * stride, 0.0f, c, at.pack, true, slope);
        load_channels(map + 3 * stride, 0.0f, c, at.pack, true, average);
    }
    float forward_scale[PACK], offset[PACK];
    if (MASK == MASK_OF_X) {
        load_channels(forward + stride, 0.0f, c, at.pack, true, forward_scale);
        load_channels(forward + 2 * stride, 0.0f, c, at.pack, true, offset);
    }
    auto value = [&](float g, float x, float y, int i) {
        const float result = MASK == MASK_OF_X ? rounded(normalised(x, mean[i], forward_scale[i], offset[i])) : y;
        const float gradient = MASK == NO_MASK ? g : masked(g, result);
        return (TRAINING ? gradient - average[i] - (x - mean[i]) * slope[i] : gradient) * scale[i];
    };
    const u64 step = u64(blockDim.y) * c.packs * PACK;
    u64 row = at.first;
    for (; row + (AHEAD - 1) * blockDim.y < at.whole_end; row += AHEAD * blockDim.y) {
        const u64 start = pack_start(c, row, at.pack);
        uint4 g_bits[AHEAD], x_bits[AHEAD], y_bits[AHEAD];
#pragma unroll
        for (int r = 0; r < AHEAD; r++) {
            g_bits[r] = load_bits(g_in + start + r * step, PACK, aligned);
            if (TRAINING) x_bits[r] = load_bits(x + start + r * step, PACK, aligned);
            if (MASK == MASK_OF_Y) y_bits[r] = load_bits(y + start + r * step, PACK, aligned);
        }
#pragma unroll
        for (int r = 0; r < AHEAD; r++) {
            float g[PACK], v[PACK] = {}, result[PACK] = {};
            unpack(g_bits[r], g);
            if (TRAINING) unpack(x_bits[r], v);
            if (MASK == MASK_OF_Y) unpack(y_bits[r], result);
#pragma unroll
            for (int i = 0; i < PACK; i++) g[i] = value(g[i], v[i], result[i], i);
            store_part(dx + start + r * step, PACK, aligned, g);
        }
    }
    for (; row < at.end; row += blockDim.y) {
        const u64 start = pack_start(c, row, at.pack);
        const int count = pack_count(c, start);
        float g[PACK], v[PACK] = {}, result[PACK] = {};
        load_part(g_in + start, count, aligned && count == PACK, g);
        if (TRAINING) load_part(x + start, count, aligned && count == PACK, v);
        if (MASK == MASK_OF_Y) load_part(y + start, count, aligned && count == PACK, result);
#pragma unroll
        for (int i = 0; i < PACK; i++) g[i] = value(g[i], v[i], result[i], i);
        store_part(dx + start, count, aligned && count == PACK, g);
    }
}

// g, x (null where statistics are constants), y (null where g is masked already), dx: [rows, C]; map: [4, stride];
// forward (or null, and null where x is): [3, stride].
KERNEL __launch_bounds__(COLUMN_THREADS, 2)
ENTRY(norm_batch_bwd_apply)(const element *g, const element *x, const element *y, const float *map,
                            const float *forward, element *dx, Columns c, u32 stride, u32 aligned) {
    if (x && forward) return apply<MASK_OF_X, true>(g, x, y, map, forward, dx, c, stride, aligned);
    if (x && y) return apply<MASK_OF_Y, true>(g, x, y, map, forward, dx, c, stride, aligned);
    if (x) return apply<NO_MASK, true>(g, x, y, map, forward, dx, c, stride, aligned);
    if (y) return apply<MASK_OF_Y, false>(g, x, y, map, forward, dx, c, stride, aligned);
    apply<NO_MASK, false>(g, x, y, map, forward, dx, c, stride, aligned);
}
