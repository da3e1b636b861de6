// Numbers of an optimiser step over many slots.
#pragma once

#include "common/number.cuh"
#include "common/tensor_list.cuh"

// The number of steps before this one, by value or in device memory.
struct StepNumber {
    const i32 *at;
    u64 value;
    __device__ __forceinline__ u64 get() const { return at ? u64(*at < 0 ? 0 : *at) : value; }
};

// The numbers of a step over many slots, as kernels/src/optim/cuda.rs has them.
struct Numbers {
    Number step_rate, decay_scale, scale, average_decay;
    StepNumber before;
    const float *scales; // of each slot's gradient, or null

    // What the gradient of slot `at` is multiplied by.
    __device__ __forceinline__ float factor(u32 at) const {
        const float all = scale.get();
        return scales ? all * scales[at] : all;
    }
    __device__ __forceinline__ float decay(const Slot &slot) const { return decay_scale.get() * slot.weight_decay; }

    // Whether the slot waits for its start.
    __device__ __forceinline__ bool waits(const Slot &slot) const {
        return slot.flags & (UNTOUCHED | STILL) && before.get() < slot.start;
    }
    // The learning rate of a slot that is not left alone, but for its own factor.
    __device__ __forceinline__ float rate(bool still) const { return still ? 0.0f : step_rate.get(); }

    // Steps that the slot took, if it is not left alone.
    __device__ __forceinline__ u64 own_steps(const Slot &slot) const {
        return before.get() - (slot.flags & UNTOUCHED ? slot.start : 0);
    }
};
static_assert(sizeof(Numbers) == 88, "cuda.rs has the same");

// LarsVariant, as cuda.rs numbers it.
constexpr u32 SIMCLR = 0, LIGHTLY = 2;
