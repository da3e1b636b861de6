// Gradients of layer normalisation of the rows of x [rows, width]. With n = (x - mean) * rstd and g = dy * weight,
//
//   dx = rstd * (g - average of g - n * average of g n) + dsum,   dweight = sum over rows of dy n,   dbias = of dy
//
// where dsum is the gradient that the residual brings. The normalised rows are never stored.
//
//   norm_layer_bwd_warp         width <= 1024: dx, and the parameters' sums over a block's rows -> partials. A warp a
//                               row; blocks stay and take row after row, so that sums stay in registers
//   norm_layer_bwd_finish       these partials -> dweight, dbias
//   norm_layer_bwd_block        wider: dx, a block a row, read again from the first-level cache
//   norm_layer_bwd_columns      wider: the parameters' sums over a block's rows -> partials
//   norm_layer_bwd_wide_finish  these partials -> dweight, dbias
//
// Partials are put together in order: the same bits every time. g is rounded by itself (__fmul_rn): an assembler that fuses
// its product with the difference from the average leaves a rounding where all elements of a row are equal.

#include "common/columns.cuh"
#include "common/reduce.cuh"

// Warps of a block.
constexpr int WARPS = 4;
constexpr int WIDE_WARPS = 8;

// Where a block puts its sums together, register r of lane l is at r * PITCH + l: 32 banks for a register of all lanes
// and for 32 neighbouring columns.
constexpr int PITCH = 32 + 32 / PACK;
constexpr int SUMS = WARP_ROW / 32 * PITCH;

// Keeps the compiler from loading for all packs at once, which would take more registers than there are.
__device__ __forceinline__ void one_by_one() { asm volatile("" ::: "memory"); }

template <int PACKS>
__device__ __forceinline__ void warp_rows(const element *__restrict__ dy, const element *__restrict__ x,
                                          const float *mean, const float *rstd, const float *__restrict__ weight,
                                          const element *__restrict__ dsum, element *__restrict__ dx, float *partials,
                                          u64 rows, int width, bool aligned, float (&shared)[WARPS][SUMS]) {
    float dweight[PACKS][PACK] = {}, dbias[PACKS][PACK] = {};
    // Calls f(k, place in the row) for each of the lane's packs.
    auto over = [&](auto f) {
#pragma unroll
        for (int k = 0; k < PACKS; k++) f(k, (k * 32 + lane_id()) * PACK);
    };
    // The weight stays in registers where sums leave room.
    constexpr bool KEPT = PACKS * PACK <= 16;
    float kept[PACKS][PACK];
    auto load_weights = [&](int at, float (&w)[PACK]) {
        if (weight) return load_warp_floats(weight + at, width - at, aligned, w);
#pragma unroll
        for (int i = 0; i < PACK; i++) w[i] = 1.0f;
    };
    auto weights = [&](int k, int at, float (&w)[PACK]) {
        if (!KEPT) return load_weights(at, w);
#pragma unroll
        for (int i = 0; i < PACK; i++) w[i] = kept[k][i];
    };
    if (KEPT) over([&](int k, int at) { load_weights(at, kept[k]); });
    for (u64 row = u64(blockIdx.x) * WARPS + warp_id(); row < rows; row += u64(gridDim.x) * WARPS) {
        const u64 start = row * width;
        uint4 x_bits[PACKS], dy_bits[PACKS];
        over([&](int k, int at) {
            x_bits[k] = load_bits(x + start + at, width - at, aligned);
            dy_bits[k] = load_bits(dy + start + at, width - at, aligned);
        });
        const float m = mean[row], r = rstd[row];
        float average = 0.0f, along = 0.0f;
        over([&](int k, int at) {
            one_by_one();
            float v[PACK], d[PACK], w[PACK];
            unpack(x_bits[k], v);
            unpack(dy_bits[k], d); // 0 behind the row's end
            weights(k, at, w);
#pragma unroll
            for (int i = 0; i < PACK; i++) {
                const float n = (v[i] - m) * r, g = __fmul_rn(d[i], w[i]);
                dweight[k][i] += d[i] * n;
                dbias[k][i] += d[i];
                average += g;
                along += g * n;
            }
        });
        average = warp_sum(average) / width;
        along = warp_sum(along) / width;
        over([&](int k, int at) {
            if (k * 32 * PACK >= width) return; // of all lanes
            one_by_one();
            forget(x_bits[k]);
            forget(dy_bits[k]);
            float v[PACK], d[PACK], w[PACK], other[PACK] = {};
            unpack(x_bits[k], v);
            unpack(dy_bits[k], d);
            weights(k, at, w);
            if (dsum) load_part(dsum + start + at, width - at, aligned, other);
#pragma unroll
            for (int i = 0; i < PACK; i++)
                v[i] = r * (__fmul_rn(d[i], w[i]) - average - (v[i] - m) * r * along) + other[i];
            store_part(dx + start + at, width - at, aligned, v);
        });
    }
    auto store = [&](const float (&sums)[PACKS][PACK], float *out) {
        __syncthreads(); // whoever still reads shared from an earlier call is done
        over([&](int k, int) {
#pragma unroll
            for (int i = 0; i < PACK; i++) shared[warp_id()][(k * PACK + i) * PITCH + lane_id()] = sums[k][i];
        });
        __syncthreads(); // shared is written
        for (u32 column = threadIdx.x; column < width; column += 32 * WARPS) {
            const u32 k = column / (32 * PACK), i = column % PACK, lane = column / PACK % 32;
            const u32 at = (k * PACK + i) * PITCH + lane;
            float sum = shared[0][at];
#pragma unroll
            for (int w = 1; w < WARPS; w++) sum += shared[w][at];
            out[column] = sum;
        }
    };
    store(dweight, partials + u64(blockIdx.x) * 2 * width);
    store(dbias, partials + (u64(blockIdx.x) * 2 + 1) * width);
}

// dy, x, dsum (may be null), dx: [rows, width]; mean, rstd: [rows]; weight (may be null): [width];
// partials: [gridDim.x, 2, width]. `aligned`: all but the partials, and rows, start at multiples of 16 bytes.
KERNEL __launch_bounds__(32 * WARPS, PACK == 8 ? 3 : 2)
ENTRY(norm_layer_bwd_warp)(const element *dy, const element *x, const float *mean, const float *rstd,
                           const float *weight, const element *dsum, element *dx, float *partials, u64 rows, u32 width,
                           u32 aligned) {
    __shared__ float shared[WARPS][SUMS];
    over_packs(width, [&](auto packs) {
        warp_rows<packs.value>(dy, x, mean, rstd, weight, dsum, dx, partials, rows, width, aligned, shared);
    });
}

// dweight, dbias: [width].
KERNEL __launch_bounds__(FINISH *FINISH)
ENTRY(norm_layer_bwd_finish)(const float *__restrict__ partials, float *dweight, float *dbias, u64 blocks, u32 width) {
    __shared__ double part[FINISH][FINISH + 1];
    // Block x, y: parameter y, columns from FINISH x on.
    const u32 at = blockIdx.x * FINISH + threadIdx.x;
    double sum = 0.0;
    if (at < width)
        for (u64 block = threadIdx.y; block < blocks; block += blockDim.y)
            sum += double(partials[(block * 2 + blockIdx.y) * width + at]);
    sum = finish_sum(sum, part);
    if (threadIdx.y == 0 && at < width) (blockIdx.y == 0 ? dweight : dbias)[at] = float(sum);
}

// As norm_layer_bwd_warp, without the parameters; block b has row b.
KERNEL __launch_bounds__(32 * WIDE_WARPS)
ENTRY(norm_layer_bwd_block)(const element *__restrict__ dy, const element *__restrict__ x, const float *mean,
                            const float *rstd, const float *__restrict__ weight, const element *__restrict__ dsum,
                            element *__restrict__ dx, u32 width, u32 aligned) {
    __shared__ float part[WIDE_WARPS];
    const u64 start = u64(blockIdx.x) * width;
    // Warps stay together: a lane may be behind the row's end.
    const u32 begin = warp_id() * 32 * PACK, step = 32 * WIDE_WARPS * PACK;
    const float m = mean[blockIdx.x], r = rstd[blockIdx.x];
    float v[PACK], g[PACK], w[PACK];
    auto load = [&](u32 at) {
        load_part(x + start + at, width - at, aligned, v);
        load_part(dy + start + at, width - at, aligned, g); // 0 behind the row's end
        if (weight) load_warp_floats(weight + at, width - at, aligned, w);
#pragma unroll
        for (int i = 0; i < PACK; i++) g[i] = weight ? __fmul_rn(g[i], w[i]) : g[i];
    };
    float average = 0.0f, along = 0.0f;
    for (u32 base = begin; base < width; base += step) {
        const u32 at = base + lane_id() * PACK;
        load(at);
        if (at >= width) continue;
#pragma unroll
        for (int i = 0; i < PACK; i++) {
            average += g[i];
            along += g[i] * ((v[i] - m) * r);
        }
    }
    average = block_sum<WIDE_WARPS>(average, part) / width;
    along = block_sum<WIDE_WARPS>(along, part) / width;
    for (u32 base = begin; base < width; base += step) {
        const u32 at = base + lane_id() * PACK;
        load(at);
        float other[PACK] = {};
        if (dsum) load_part(dsum + start + at, width - at, aligned, other);
#pragma unroll
        for (int i = 0; i < PACK; i++) v[i] = r * (g[i] - average - (v[i] - m) * r * along) + other[i];
        store_part(dx + start + at, width - at, aligned, v);
    }
}

// The parameters' sums, by pack columns (see columns.cuh). Of a wide row, element e is of row e / width.
KERNEL __launch_bounds__(COLUMN_THREADS)
ENTRY(norm_layer_bwd_columns)(const element *__restrict__ dy, const element *__restrict__ x,
                              const float *__restrict__ mean, const float *__restrict__ rstd,
                              double *__restrict__ partials, Columns c, u32 aligned) {
    __shared__ ColumnParts parts;
    const Column at = column_of(c);
    double dweight[PACK] = {}, dbias[PACK] = {};
    const u32 rows = u32(u64(c.packs) * PACK / c.channels); // of a wide row
    if (at.inside) {
        u32 below[PACK];
#pragma unroll
        for (int i = 0; i < PACK; i++) below[i] = (at.pack * PACK + i) / c.channels;
        for (u64 row = at.first; row < at.end; row += blockDim.y) {
            const u64 start = pack_start(c, row, at.pack);
            const int count = pack_count(c, start);
            float v[PACK], d[PACK];
            load_part(x + start, count, aligned && count == PACK, v);
            load_part(dy + start, count, aligned && count == PACK, d);
            float m = 0.0f, r = 0.0f;
#pragma unroll
            for (int i = 0; i < PACK; i++) {
                if (i >= count) continue;
                // A pack mostly lies in one row.
                if (i == 0 || below[i] != below[i - 1]) m = mean[row * rows + below[i]], r = rstd[row * rows + below[i]];
                dweight[i] += double(d[i] * ((v[i] - m) * r));
                dbias[i] += double(d[i]);
            }
        }
    }
    sum_columns(dweight, dbias, parts, [&](int i, double w, double b) {
        if (!at.inside) return;
        partials[partial_at(c, blockIdx.x, 0, i, at.pack)] = w;
        partials[partial_at(c, blockIdx.x, 1, i, at.pack)] = b;
    });
}

// dweight, dbias: [width].
KERNEL __launch_bounds__(FINISH *FINISH)
ENTRY(norm_layer_bwd_wide_finish)(const double *__restrict__ partials, float *dweight, float *dbias, Columns c,
                                  u64 blocks) {
    __shared__ double part[FINISH][FINISH + 1];
    const u32 channel = blockIdx.x * FINISH + threadIdx.x;
    double w = 0.0, b = 0.0;
    over_partials(c, blocks, min(channel, c.channels - 1), [&](u64 block, u32 e) {
        w += partials[partial_at(c, block, 0, e % PACK, e / PACK)];
        b += partials[partial_at(c, block, 1, e % PACK, e / PACK)];
    });
    w = finish_sum(w, part);
    b = finish_sum(b, part);
    if (threadIdx.y > 0 || channel >= c.channels) return;
    dweight[channel] = float(w);
    dbias[channel] = float(b);
}
