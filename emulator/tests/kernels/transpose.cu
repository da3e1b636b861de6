// transpose.cu: y[c, r] = x[r, c] for 4-byte elements.
//
// A block of 32 x 8 threads moves a tile of 32 x 32: threads with neighbouring threadIdx.x read neighbours
// in a row of x and write neighbours in a row of y. The tile turns in shared memory, whose rows are one
// element longer than the tile so that the elements of a column lie in 32 different banks.

#ifndef PADDING
#define PADDING 1
#endif
#define TILE 32
#define STEP 8

extern "C" __global__ void __launch_bounds__(TILE * STEP) transpose(
    const float* __restrict__ x,  // [rows, columns]
    float* __restrict__ y,        // [columns, rows]
    int rows, int columns) {
    __shared__ float tile[TILE][TILE + PADDING];
    const int row = blockIdx.y * TILE;
    const int column = blockIdx.x * TILE;

    for (int i = threadIdx.y; i < TILE; i += STEP) {
        if (row + i < rows && column + threadIdx.x < columns) {
            tile[i][threadIdx.x] = x[(long long)(row + i) * columns + column + threadIdx.x];
        }
    }
    __syncthreads();  // Writing the tile by rows | reading it by columns.
    for (int i = threadIdx.y; i < TILE; i += STEP) {
        if (column + i < columns && row + threadIdx.x < rows) {
            y[(long long)(column + i) * rows + row + threadIdx.x] = tile[threadIdx.x][i];
        }
    }
}
