// scan.cu: exclusive prefix sums of rows, and the compaction of rows: the positions of the values that a
// threshold keeps.
//
// scan_rows: a block of 256 threads takes a row in tiles of 1024; a thread sums four neighbours, a warp
// scans the sums by shuffles, the block adds what the warps before summed. The carry from tile to tile is
// in every thread's register.
// compact_rows: a warp takes a row, 32 values at a time; a ballot tells each kept value its place. In
// passing, kept values are counted by their lowest three bits: lanes that hold the same bits find each
// other by a match and one adds for all.

typedef unsigned int u32;

#define WARPS 8
#define GROUPS 8
#define FULL 0xffffffffu

extern "C" __global__ void __launch_bounds__(WARPS * 32) scan_rows(
    const u32* __restrict__ x,  // [rows, columns]
    u32* __restrict__ y,        // [rows, columns]
    int columns) {
    __shared__ u32 warp_sum[WARPS];
    const int lane = threadIdx.x % 32;
    const int warp = threadIdx.x / 32;
    const u32* in = x + (long long)blockIdx.x * columns;
    u32* out = y + (long long)blockIdx.x * columns;
    const bool vectors = columns % 4 == 0;

    u32 carry = 0;
    for (int tile = 0; tile < columns; tile += WARPS * 32 * 4) {
        const int first = tile + threadIdx.x * 4;
        uint4 four = {0, 0, 0, 0};
        if (vectors) {
            if (first < columns) {
                four = *(const uint4*)(in + first);
            }
        } else {
            four.x = first < columns ? in[first] : 0;
            four.y = first + 1 < columns ? in[first + 1] : 0;
            four.z = first + 2 < columns ? in[first + 2] : 0;
            four.w = first + 3 < columns ? in[first + 3] : 0;
        }
        const u32 sum = four.x + four.y + four.z + four.w;
        u32 through = sum;
#pragma unroll
        for (int distance = 1; distance < 32; distance *= 2) {
            const u32 other = __shfl_up_sync(FULL, through, distance);
            through += lane >= distance ? other : 0;
        }
        if (lane == 31) {
            warp_sum[warp] = through;
        }
        __syncthreads();  // Writing the warps' sums | reading those of the warps before.
        u32 before = carry + through - sum;
        for (int w = 0; w < WARPS; w++) {
            const u32 other = warp_sum[w];
            before += w < warp ? other : 0;
            carry += other;
        }
        __syncthreads();  // Reading this tile's sums | writing the next tile's.
        const uint4 result = {before, before + four.x, before + four.x + four.y, before + four.x + four.y + four.z};
        if (vectors) {
            if (first < columns) {
                *(uint4*)(out + first) = result;
            }
        } else {
            if (first < columns) out[first] = result.x;
            if (first + 1 < columns) out[first + 1] = result.y;
            if (first + 2 < columns) out[first + 2] = result.z;
            if (first + 3 < columns) out[first + 3] = result.w;
        }
    }
}

extern "C" __global__ void __launch_bounds__(WARPS * 32) compact_rows(
    const u32* __restrict__ x,        // [rows, columns]
    u32* __restrict__ positions,      // [rows, columns], the first kept[r] of row r written
    u32* __restrict__ kept,           // [rows]
    u32* __restrict__ largest,        // [rows], zero where nothing is kept
    u32* __restrict__ groups,         // [rows, 8]
    int rows, int columns, u32 threshold) {
    __shared__ u32 group_count[WARPS][GROUPS];
    const int lane = threadIdx.x % 32;
    const int warp = threadIdx.x / 32;
    const int row = blockIdx.x * WARPS + warp;
    if (row >= rows) {
        return;
    }
    if (lane < GROUPS) {
        group_count[warp][lane] = 0;
    }
    __syncwarp();  // Clearing the counts | counting.
    u32 count = 0;
    u32 maximum = 0;
    for (int first = 0; first < columns; first += 32) {
        const u32 value = first + lane < columns ? x[(long long)row * columns + first + lane] : 0;
        const bool keep = first + lane < columns && value >= threshold;
        const u32 keepers = __ballot_sync(FULL, keep);
        if (keep) {
            const u32 place = count + __popc(keepers & ((1u << lane) - 1));
            positions[(long long)row * columns + place] = first + lane;
            maximum = max(maximum, value);
            const u32 group = value % GROUPS;
            const u32 peers = __match_any_sync(keepers, group);
            if (lane == __ffs(peers) - 1) {
                group_count[warp][group] += __popc(peers);
            }
        }
        count += __popc(keepers);
        __syncwarp();  // This step's leaders counting | the next step's, other lanes.
    }
    maximum = __reduce_max_sync(FULL, maximum);
    if (lane < GROUPS) {
        groups[row * GROUPS + lane] = group_count[warp][lane];
    }
    if (lane == 0) {
        kept[row] = count;
        largest[row] = maximum;
    }
}
