// Numbers of a training step that live in device memory, so that a captured step needs nothing from the host: the
// learning rate from its schedule, the step number, and a history of what the step found. One thread each.

#include "common/element.cuh"

// out = values[min(step, n - 1)], NaN before the first; values: [n], step, out: [1]
KERNEL optim_schedule(const float *values, const i32 *step, float *out, u64 n) {
    const i64 at = *step;
    *out = at < 0 ? __int_as_float(0x7fffffff) : values[u64(at) < n ? u64(at) : n - 1];
}

// step += 1; step: [1]
KERNEL optim_advance(i32 *step) { *step = i32(u32(*step) + 1); }

// As cuda.rs has it.
constexpr u32 SOURCES = 32;
struct Sources {
    const float *at[SOURCES];
};

// history[step mod rows, first + i] = *sources[i] for i < count, a thread each; nothing before step 0.
// history: [rows, width], step: [1]
KERNEL optim_record(float *history, const i32 *step, Sources sources, u64 rows, u64 width, u64 first, u32 count) {
    const i64 at = *step;
    if (at < 0 || threadIdx.x >= count) return;
    history[u64(at) % rows * width + first + threadIdx.x] = *sources.at[threadIdx.x];
}
