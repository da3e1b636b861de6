// Statistics of batch normalisation from sums that the kernel which computed x [rows, C] left behind for every tile of its
// rows, in place of norm_batch_statistics, which reads x. C is a multiple of 8.
//
// A block merges a run of tiles: thread x has a channel, thread y every blockDim.y-th tile. What it leaves is what
// norm_batch_finish takes. Threads wait for each other where a block's numbers are added.

#include "common/columns.cuh"

// sums: [tiles, 2, C], of each channel the sum over the rows of a tile and the sum of squares about its mean; a tile has
// `tile_rows` rows but the last. Sums of a tile's rows are exact in float32, or nearly, where they are large beside the
// deviation: all else is in float64. The formula is that of norm_batch_finish. `tiles_each` tiles have c.rows_each rows.
KERNEL __launch_bounds__(FINISH *FINISH)
norm_batch_merge(const float *__restrict__ sums, double *__restrict__ partials, Columns c, u32 tile_rows, u32 tiles,
                 u32 tiles_each) {
    __shared__ double part[FINISH][FINISH + 1];
    const u32 channel = blockIdx.x * FINISH + threadIdx.x;
    const u32 mine = min(channel, c.channels - 1);
    const u32 first = blockIdx.y * tiles_each, end = min(first + tiles_each, tiles);
    const auto rows_before = [&](u32 tile) { return min(u64(tile) * tile_rows, c.wide_rows); };
    const double n = double(rows_before(end) - rows_before(first));
    double sum = 0.0;
    for (u32 tile = first + threadIdx.y; tile < end; tile += blockDim.y)
        sum += double(sums[u64(tile) * 2 * c.channels + mine]);
    const double mean = finish_sum(sum, part) / n;
    double squares = 0.0;
    for (u32 tile = first + threadIdx.y; tile < end; tile += blockDim.y) {
        const float *of_tile = sums + u64(tile) * 2 * c.channels + mine;
        const double rows = double(rows_before(tile + 1) - rows_before(tile));
        const double delta = double(of_tile[0]) / rows - mean;
        squares += double(of_tile[c.channels]) + rows * delta * delta;
    }
    squares = finish_sum(squares, part);
    if (threadIdx.y > 0 || channel >= c.channels) return;
    partials[partial_at(c, blockIdx.y, 0, channel % PACK, channel / PACK)] = mean;
    partials[partial_at(c, blockIdx.y, 1, channel % PACK, channel / PACK)] = squares;
}
