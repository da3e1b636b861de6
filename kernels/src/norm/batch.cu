// Batch normalisation of x [rows, C]: statistics of each channel, then y = relu?((x - mean) * scale + offset +
// residual?) in one pass. The normalised tensor, its sum with the residual and the mask of the ReLU are never stored.
//
//   norm_batch_statistics   mean and sum of squares about it, of each channel in each block's rows -> partials
//   norm_batch_finish       partials -> mean, variance and the map (mean, scale, offset) of each channel
//   norm_batch_prepare      the map from given statistics
//   norm_batch_apply        x -> y
//
// A thread of the first and the last goes down the rows with the channels of one pack (see columns.cuh). Threads wait
// for each other once, when a block's rows are summed, and when partials are.

#include "common/columns.cuh"
#include "common/normalise.cuh"

// Rows of a thread whose sums are in float32.
constexpr int CHUNK = 8;

// Squares are summed in float32 about the mean of the CHUNK values that a thread holds in registers, so that they do
// not cancel, and moved in float64 to a shift that all threads of the block share: the value in the block's first row.
// Being a member, it costs at most as many of float64's bits as the logarithm of the block's rows.
KERNEL __launch_bounds__(COLUMN_THREADS, 2)
ENTRY(norm_batch_statistics)(const element *__restrict__ x, double *__restrict__ partials, Columns c, u32 aligned) {
    __shared__ ColumnParts parts;
    const Column at = column_of(c);
    double sum[PACK] = {}, square[PACK] = {}; // of x - shift
    const u64 top = blockIdx.x * c.rows_each;
    const u64 shift_start = pack_start(c, top, at.pack);
    if (at.inside) {
        float shift[PACK];
        const int count = pack_count(c, shift_start);
        load_part(x + shift_start, count, aligned && count == PACK, shift);
        const u64 step = u64(blockDim.y) * c.packs * PACK;
        u64 row = at.first;
        for (; row + (CHUNK - 1) * blockDim.y < at.whole_end; row += CHUNK * blockDim.y) {
            const element *from = x + pack_start(c, row, at.pack);
            uint4 bits[CHUNK];
#pragma unroll
            for (int r = 0; r < CHUNK; r++) bits[r] = load_bits(from + r * step, PACK, aligned);
#pragma unroll
            for (int i = 0; i < PACK; i++) {
                float v[CHUNK];
#pragma unroll
                for (int r = 0; r < CHUNK; r++) v[r] = pick(bits[r], i);
                // In pairs: equal values have their value for centre, exactly.
                const float low = (v[0] + v[1]) + (v[2] + v[3]), high = (v[4] + v[5]) + (v[6] + v[7]);
                const float centre = (low + high) * (1.0f / CHUNK);
                float s = 0.0f, q = 0.0f;
#pragma unroll
                for (int r = 0; r < CHUNK; r++) {
                    const float d = v[r] - centre;
                    s += d;
                    q += d * d;
                }
                const double away = double(centre) - double(shift[i]), moved = double(s) + CHUNK * away;
                sum[i] += moved;
                square[i] += double(q) + away * (double(s) + moved);
            }
        }
        for (; row < at.end; row += blockDim.y) {
            const u64 start = pack_start(c, row, at.pack);
            const int count = pack_count(c, start);
            float v[PACK];
            load_part(x + start, count, aligned && count == PACK, v);
#pragma unroll
            for (int i = 0; i < PACK; i++) {
                const double d = i < count ? double(v[i]) - double(shift[i]) : 0.0;
                sum[i] += d;
                square[i] += d * d;
            }
        }
    }
    sum_columns(sum, square, parts, [&](int i, double s, double q) {
        if (!at.inside) return;
        const u64 last = pack_start(c, at.end - 1, at.pack) + i;
        const double n = double(at.end - top) - (last < c.elements ? 0.0 : 1.0);
        const double shift = shift_start + i < c.elements ? double(to_float(x[shift_start + i])) : 0.0;
        partials[partial_at(c, blockIdx.x, 0, i, at.pack)] = n > 0.0 ? shift + s / n : 0.0;
        partials[partial_at(c, blockIdx.x, 1, i, at.pack)] = n > 0.0 ? q - s * s / n : 0.0;
    });
}

// The map of channel `channel`: mean, scale, offset at 0, 1, 2 times `stride`. What rounding the mean to float32 loses
// goes into the offset. The mean is subtracted before scaling: x * scale + offset would cancel where it is large.
__device__ __forceinline__ void store_map(float *map, u32 stride, u32 channel, double mean, double variance,
                                          const float *weight, const float *bias, float eps) {
    const double scale = (weight ? double(weight[channel]) : 1.0) / sqrt(variance + double(eps));
    const double lost = mean - double(float(mean));
    map[channel] = float(mean);
    map[stride + channel] = float(scale);
    map[2 * stride + channel] = float((bias ? double(bias[channel]) : 0.0) - lost * scale);
}

// mean = sum of n_b mean_b / n; squares about it = sum of squares_b + n_b (mean_b - mean)^2 over the blocks b: the
// formula of Chan, Golub and LeVeque (1983) for all of them at once, in float64.
KERNEL __launch_bounds__(FINISH *FINISH)
ENTRY(norm_batch_finish)(const double *__restrict__ partials, const float *weight, const float *bias, float *mean_out,
                         float *variance_out, float *map, Columns c, u64 blocks, u32 stride, float eps) {
    __shared__ double part[FINISH][FINISH + 1];
    const u32 channel = blockIdx.x * FINISH + threadIdx.x;
    const u32 mine = min(channel, c.channels - 1);
    const u64 wide = u64(c.packs) * PACK;
    // Rows of block b that have element e of the wide row.
    auto rows_of = [&](u64 block, u32 e) {
        const u64 start = block * c.rows_each, end = min(start + c.rows_each, c.wide_rows);
        return double(end - start) - ((end - 1) * wide + e < c.elements ? 0.0 : 1.0);
    };
    const double n = double(c.elements / c.channels);
    double sum = 0.0;
    over_partials(c, blocks, mine, [&](u64 block, u32 e) {
        sum += rows_of(block, e) * partials[partial_at(c, block, 0, e % PACK, e / PACK)];
    });
    const double mean = finish_sum(sum, part) / n;
    double squares = 0.0;
    over_partials(c, blocks, mine, [&](u64 block, u32 e) {
        const double delta = partials[partial_at(c, block, 0, e % PACK, e / PACK)] - mean;
        squares += partials[partial_at(c, block, 1, e % PACK, e / PACK)] + rows_of(block, e) * delta * delta;
    });
    // Rounding may leave less than nothing; NaN stays.
    const double exact = finish_sum(squares, part) / n, variance = exact < 0.0 ? 0.0 : exact;
    if (threadIdx.y > 0 || channel >= c.channels) return;
    mean_out[channel] = float(mean);
    variance_out[channel] = float(variance);
    store_map(map, stride, channel, mean, variance, weight, bias, eps);
}

// The map from given statistics; a thread a channel.
KERNEL ENTRY(norm_batch_prepare)(const float *mean, const float *variance, const float *weight, const float *bias,
                                 float *map, u32 channels, u32 stride, float eps) {
    const u32 channel = blockIdx.x * blockDim.x + threadIdx.x;
    if (channel < channels)
        store_map(map, stride, channel, double(mean[channel]), double(variance[channel]), weight, bias, eps);
}

// Rows that a thread has in flight.
constexpr int AHEAD = 4;

template <bool RESIDUAL>
__device__ __forceinline__ void apply(const element *__restrict__ x, const element *__restrict__ residual,
                                      const float *__restrict__ map, element *__restrict__ y, const Columns &c,
                                      u32 stride, bool relu, bool aligned) {
    const Column at = column_of(c);
    if (!at.inside) return;
    float mean[PACK], scale[PACK], offset[PACK];
    load_channels(map, 0.0f, c, at.pack, true, mean);
    load_channels(map + stride, 0.0f, c, at.pack, true, scale);
    load_channels(map + 2 * stride, 0.0f, c, at.pack, true, offset);
    auto value = [&](float x, float residual, int i) {
        const float v = normalised(x, mean[i], scale[i], offset[i]) + residual;
        return relu && v < 0.0f ? 0.0f : v;
    };
    const u64 step = u64(blockDim.y) * c.packs * PACK;
    u64 row = at.first;
    for (; row + (AHEAD - 1) * blockDim.y < at.whole_end; row += AHEAD * blockDim.y) {
        const u64 start = pack_start(c, row, at.pack);
        uint4 x_bits[AHEAD], residual_bits[AHEAD];
#pragma unroll
        for (int r = 0; r < AHEAD; r++) {
            x_bits[r] = load_bits(x + start + r * step, PACK, aligned);
            if (RESIDUAL) residual_bits[r] = load_bits(residual + start + r * step, PACK, aligned);
        }
#pragma unroll
        for (int r = 0; r < AHEAD; r++) {
            float v[PACK], other[PACK] = {};
            unpack(x_bits[r], v);
            if (RESIDUAL) unpack(residual_bits[r], other);
#pragma unroll
            for (int i = 0; i < PACK; i++) v[i] = value(v[i], other[i], i);
            store_part(y + start + r * step, PACK, aligned, v);
        }
    }
    for (; row < at.end; row += blockDim.y) {
        const u64 start = pack_start(c, row, at.pack);
        const int count = pack_count(c, start);
        float v[PACK], other[PACK] = {};
        load_part(x + start, count, aligned && count == PACK, v);
        if (RESIDUAL) load_part(residual + start, count, aligned && count == PACK, other);
#pragma unroll
        for (int i = 0; i < PACK; i++) v[i] = value(v[i], other[i], i);
        store_part(y + start, count, aligned && count == PACK, v);
    }
}

// x, residual (may be null), y: [rows, C]; map: [3, stride].
KERNEL __launch_bounds__(COLUMN_THREADS)
ENTRY(norm_batch_apply)(const element *x, const element *residual, const float *map, element *y, Columns c, u32 stride,
                        u32 relu, u32 aligned) {
    if (residual) return apply<true>(x, residual, map, y, c, stride, relu, aligned);
    apply<false>(x, residual, map, y, c, stride, relu, aligned);
}
