// Step 2: the two products through shared memory. A block makes 16 x 16 results from tiles of 16 x 16 factors, so each
// factor comes from device memory once for 16 uses, by neighbouring threads side by side; a warp has a row of the
// softmax. The scores are still in device memory.

#include "attention/problem.cuh"
#include "common/reduce.cuh"

constexpr int TILE = 16;

// scores: [B, H, T, T]. Block (x, y, z): 16 keys, 16 queries, a sample and head.
KERNEL ladder_v2_scores(const element *qkv, const i32 *valid, float *scores, Problem p) {
    __shared__ float query[TILE][TILE + 1], key[TILE][TILE + 1];
    const Place at = place_of(blockIdx.z, p);
    const u32 x = threadIdx.x % TILE, y = threadIdx.x / TILE, first_s = blockIdx.x * TILE, first_t = blockIdx.y * TILE;
    float sum = 0.0f;
    for (u32 d = 0; d < p.size; d += TILE) {
        const bool inside = d + x < p.size;
        query[y][x] = inside && first_t + y < p.tokens
                          ? to_float(part_of(qkv, 0, at, p)[(first_t + y) * token_stride(p) + d + x]) : 0.0f;
        key[y][x] = inside && first_s + y < p.tokens
                        ? to_float(part_of(qkv, 1, at, p)[(first_s + y) * token_stride(p) + d + x]) : 0.0f;
        __syncthreads(); // both tiles are there
        for (int k = 0; k < TILE; k++) sum = fmaf(query[y][k], key[x][k], sum);
        __syncthreads(); // both are read
    }
    const u32 t = first_t + y, s = first_s + x;
    if (t < p.tokens && s < p.tokens)
        scores[(at.pair * p.tokens + t) * p.tokens + s] =
            s < keys_of(valid, at.sample, p).count ? sum * p.scale : -INFINITE;
}

// As ladder_v1_softmax, a warp a row.
KERNEL ladder_v2_softmax(float *scores, float *lse, Problem p, u64 count) {
    const u64 row = u64(blockIdx.x) * (blockDim.x / 32) + warp_id();
    if (row >= count) return;
    scores += row * p.tokens;
    float largest = -INFINITE, total = 0.0f;
    for (u32 s = lane_id(); s < p.tokens; s += 32) largest = fmaxf(largest, scores[s]);
    largest = warp_max(largest);
    const float shift = largest == -INFINITE ? 0.0f : largest;
    for (u32 s = lane_id(); s < p.tokens; s += 32) total += expf(scores[s] - shift);
    total = warp_sum(total);
    for (u32 s = lane_id(); s < p.tokens; s += 32) scores[s] = total == 0.0f ? 0.0f : expf(scores[s] - shift) / total;
    if (lane_id() == 0) lse[row] = total == 0.0f ? -INFINITE : largest + logf(total);
}

// out: [B, T, H, D]. Block (x, y, z): 16 components, 16 queries, a sample and head.
KERNEL ladder_v2_sum(const element *qkv, const i32 *valid, const float *weights, element *out, Problem p) {
    __shared__ float weight[TILE][TILE + 1], value[TILE][TILE + 1];
    const Place at = place_of(blockIdx.z, p);
    const u32 count = keys_of(valid, at.sample, p).count;
    const u32 x = threadIdx.x % TILE, y = threadIdx.x / TILE, first_d = blockIdx.x * TILE, t = blockIdx.y * TILE + y;
    float sum = 0.0f;
    for (u32 s = 0; s < count; s += TILE) {
        weight[y][x] = t < p.tokens && s + x < count ? weights[(at.pair * p.tokens + t) * p.tokens + s + x] : 0.0f;
        value[y][x] = s + y < count && first_d + x < p.size
                          ? to_float(part_of(qkv, 2, at, p)[(s + y) * token_stride(p) + first_d + x]) : 0.0f;
        __syncthreads(); // both tiles are there
        for (int k = 0; k < TILE; k++) sum = fmaf(weight[y][k], value[k][x], sum);
        __syncthreads(); // both are read
    }
    if (t < p.tokens && first_d + x < p.size) from_float(sum, rows_of(out, at, p)[t * row_stride(p) + first_d + x]);
}
