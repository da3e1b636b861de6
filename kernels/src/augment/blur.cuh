// Separable Gaussian blur with reflected borders, with the sums of blur.rs in their order.
#pragma once

#include "common/element.cuh"

// Rows that a thread blurs together.
constexpr int ROWS = 4;

// Position i reflected into 0 .. n about the first and last, which are not repeated.
__device__ __forceinline__ int reflect(int i, int n) {
    if (n == 1) return 0;
    while (i < 0 || i >= n) i = i < 0 ? -i : 2 * (n - 1) - i;
    return i;
}

// The weights of the blur from one end to the other, with ROWS - 1 zeros before and behind: a sum may take them along.
__device__ __forceinline__ void load_weights(const u8 *bytes, int taps, float *weights) {
    const int half = taps - 1;
    for (int i = threadIdx.x; i < 2 * half + 2 * ROWS - 1; i += blockDim.x) {
        const int k = abs(i - half - (ROWS - 1));
        const u8 *at = bytes + 4 * k;
        float weight = 0.0f;
        if (k <= half && reinterpret_cast<u64>(at) % 4 == 0) weight = *reinterpret_cast<const float *>(at);
        else if (k <= half) weight = __uint_as_float(at[0] | at[1] << 8 | at[2] << 16 | u32(at[3]) << 24);
        weights[i] = weight;
    }
}

// The sums of a value times the weights that ROWS rows, one below the other, have for it. `window` holds those of the
// value before, so that each is read once.
__device__ __forceinline__ void add_to_rows(float (&sums)[ROWS], float (&window)[ROWS], float weight, float v) {
#pragma unroll
    for (int i = ROWS - 1; i > 0; i--) window[i] = window[i - 1];
    window[0] = weight;
#pragma unroll
    for (int i = 0; i < ROWS; i++) sums[i] += window[i] * v;
}

// The vertical half of the blur, in place. Ends with a barrier. image: [height, width, C], or [C, height, width] where it
// is large; weights: see load_weights; strip: strip_values floats, at least `taps`.
//
// A thread goes down a column, ROWS rows at a time. Rows that were overwritten are needed up to taps - 1 above, at
// reflected borders too: the last `taps` rows are remembered as they were, row y in slot y modulo taps.
template <int C, bool LARGE>
__device__ __forceinline__ void blur_columns(const float *weights, int taps, int height, u32 width, float *image,
                                             float *strip, u32 strip_values) {
    const u32 row = LARGE ? width : width * C;
    const int half = taps - 1;
    const u32 group = min(blockDim.x, strip_values / taps);
    float *memory = strip + threadIdx.x; // [taps, group]
#pragma unroll 1
    for (u32 i = threadIdx.x; threadIdx.x < group && i < width * C; i += group) {
        float *column = image + i; // its first row
        if (LARGE) column += (i / width) * (width * (height - 1));
        int slot = 0; // of row y
#pragma unroll 1
        for (int y = 0; y < height; y += ROWS) {
            float sums[ROWS] = {}, window[ROWS] = {};
            if (y >= half && y + half + ROWS <= height) {
                // From row y - half on: those above y are remembered, the oldest in the slot behind that of y.
                const float *weight = weights + ROWS - 1;
                int past = slot + 1 == taps ? 0 : slot + 1;
                for (int k = 0; k < half; k++) {
                    add_to_rows(sums, window, *weight++, memory[past * group]);
                    if (++past == taps) past = 0;
                }
                const float *source = column + y * row;
                for (int k = 0; k < half + ROWS; k++, source += row) add_to_rows(sums, window, *weight++, *source);
            } else {
#pragma unroll 1
                for (int k = 0; k < 2 * half + ROWS; k++) {
                    // What is farther above than is remembered belongs to rows below the image.
                    const int from = max(reflect(y + k - half, height), y - half);
                    const int past = slot - (y - from);
                    const float v = from >= y ? column[from * row]
                                              : memory[(past < 0 ? past + taps : past) * group];
                    add_to_rows(sums, window, weights[ROWS - 1 + k], v);
                }
            }
#pragma unroll
            for (int i = 0; i < ROWS; i++) {
                if (y + i == height) break;
                float *at = column + (y + i) * row;
                memory[slot * group] = *at;
                *at = sums[i];
                if (++slot == taps) slot = 0;
            }
        }
    }
    __syncthreads(); // the image is blurred downwards
}
