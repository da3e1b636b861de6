// One dimension of an antialiased resize, in float64 step by step as in resample.rs: weights have its bits.
#pragma once

#include "common/element.cuh"

// Kept in shared memory: registers are for the sums.
struct Filter {
    double scale, stretch, support;
    u32 input, output;
    bool cubic;

    __device__ __forceinline__ void prepare(u32 from, u32 to, bool is_cubic) {
        scale = double(from) / double(to);
        stretch = scale > 1.0 ? scale : 1.0;
        support = (is_cubic ? 2.0 : 1.0) * stretch;
        input = from;
        output = to;
        cubic = is_cubic;
    }

    // At most how many inputs an output sees.
    __device__ __forceinline__ u32 bound() const { return input == output ? 1 : u32(2.0 * support) + 2; }

    __device__ __forceinline__ double center(u32 i) const { return scale * (double(i) + 0.5); }

    // The inputs that output i sees: from `start`, `count` of them. Where nothing is resized it is input i alone.
    __device__ __forceinline__ void bounds(u32 i, u32 &start, u32 &count) const {
        if (input == output) {
            start = i;
            count = 1;
            return;
        }
        const double middle = center(i);
        const double low = middle - support + 0.5, high = middle + support + 0.5;
        start = low > 0.0 ? u32(low) : 0;
        const u32 end = u32(high);
        count = (end < input ? end : input) - start;
    }

    // What input j counts for output i, before weights are scaled to the sum 1.
    __device__ __forceinline__ double raw(u32 j, u32 i) const {
        if (input == output) return 1.0;
        const double x = fabs((double(j) + 0.5 - center(i)) / stretch);
        if (!cubic) return x < 1.0 ? 1.0 - x : 0.0;
        if (x < 1.0) return (1.5 * x - 2.5) * x * x + 1.0;
        return x < 2.0 ? ((-0.5 * x + 2.5) * x - 4.0) * x + 2.0 : 0.0;
    }

    __device__ __forceinline__ double total(u32 i, u32 start, u32 count) const {
        double sum = 0.0;
#pragma unroll 1
        for (u32 k = 0; k < count; k++) sum += raw(start + k, i);
        return sum;
    }

    __device__ __forceinline__ float weight(u32 j, u32 i, double total) const { return float(raw(j, i) / total); }
};

// The outputs of a dimension in shared memory: what each sees, and the sum of its weights.
struct Outputs {
    double *total;
    u32 *start, *count;

    __device__ __forceinline__ void fill(const Filter &filter, u32 i) const {
        u32 first, number;
        filter.bounds(i, first, number);
        start[i] = first;
        count[i] = number;
        total[i] = filter.total(i, first, number);
    }
};

// Places in rows of `width` places, from `first` on every `step`-th: one division for a whole loop.
struct Walk {
    u32 row, column, rows, columns, width;

    __device__ __forceinline__ Walk(u32 width, u32 first = threadIdx.x, u32 step = blockDim.x)
        : row(first / width), column(first % width), rows(step / width), columns(step % width), width(width) {}

    __device__ __forceinline__ void next() {
        row += rows;
        column += columns;
        if (column >= width) column -= width, row++;
    }
};

// x / 255, rounded correctly in three operations (Markstein, "Computation of elementary functions on the IBM RISC
// System/6000 processor", 1990): the remainder of the first quotient is exact.
__device__ __forceinline__ float over_255(float x) {
    constexpr float inverse = 1.0f / 255.0f;
    const float quotient = x * inverse;
    return __fmaf_rn(__fmaf_rn(-quotient, 255.0f, x), inverse, quotient);
}
