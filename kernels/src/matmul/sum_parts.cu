// The second pass of products whose steps k are shared out to several blocks: the parts' sums, added in order.
//
// Each thread makes four neighbouring results, in one access where `together` says that n is a multiple of four and out is
// aligned. Threads do not wait for each other.

#include "common/divisor.cuh"
#include "common/few.cuh"

// out[i] = sum over parts of partial[part, i] + bias[i % columns], added to what was there where `accumulate` says so;
// partial: [parts, n], out: [n], bias: [columns] or null
KERNEL ENTRY(matmul_sum_parts)(
    const float *partial, const element *bias, element *out, u32 n, u32 parts, Divisor columns, u32 together,
    u32 accumulate
) {
    const u32 first = (blockIdx.x * blockDim.x + threadIdx.x) * 4;
    if (first >= n) return;
    float sums[4] = {};
    const float *from = partial + first;
    if (together) {
#pragma unroll 4
        for (u32 part = 0; part < parts; part++, from += n) {
            float v[4];
            load_pack(from, v);
#pragma unroll
            for (int i = 0; i < 4; i++) sums[i] += v[i];
        }
    } else {
#pragma unroll 1
        for (u32 part = 0; part < parts; part++, from += n) {
#pragma unroll
            for (int i = 0; i < 4; i++)
                if (first + i < n) sums[i] += from[i];
        }
    }
    if (bias) {
        u32 rest = first;
        u32 column = take_remainder(rest, columns);
#pragma unroll
        for (int i = 0; i < 4; i++) {
            if (first + i < n) sums[i] += to_float(bias[column]);
            column = column + 1 == columns.divisor ? 0 : column + 1;
        }
    }
    if (accumulate) {
        float before[4] = {};
        if (together) {
            load_few(out + first, before);
        } else {
#pragma unroll
            for (int i = 0; i < 4; i++)
                if (first + i < n) before[i] = to_float(out[first + i]);
        }
#pragma unroll
        for (int i = 0; i < 4; i++) sums[i] += before[i];
    }
    if (together) return store_few(out + first, sums);
#pragma unroll
    for (int i = 0; i < 4; i++)
        if (first + i < n) from_float(sums[i], out[first + i]);
}
