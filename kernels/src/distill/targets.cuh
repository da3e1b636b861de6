// A teacher's probabilities, made again from its logits, the centre, the temperature and two numbers of each row.
#pragma once

#include "distill/row.cuh"

// W logits from where a pack starts, or one.
template <int W> __device__ __forceinline__ void load_logits(const element *at, float (&v)[W]) {
    if constexpr (W == PACK)
        load_pack(at, v);
    else
        v[0] = to_float(*at);
}

// W numbers of the centre, zeros where there is none.
template <int W> __device__ __forceinline__ void load_center(const float *center, u32 at, float (&c)[W]) {
#pragma unroll
    for (int i = 0; i < W; i++) c[i] = 0.0f;
    if (!center) return;
    if constexpr (W == 1)
        c[0] = center[at];
    else {
#pragma unroll
        for (int half = 0; half < W; half += 4) {
            float four[4];
            load_pack(center + at + half, four);
#pragma unroll
            for (int i = 0; i < 4; i++) c[half + i] = four[i];
        }
    }
}

// (logit - centre) / temperature of W logits.
template <int W>
__device__ __forceinline__ void load_scaled(const element *at, const float (&c)[W], Temperature t, float (&d)[W]) {
    load_logits<W>(at, d);
#pragma unroll
    for (int i = 0; i < W; i++) d[i] = t.under(d[i] - c[i]);
}
