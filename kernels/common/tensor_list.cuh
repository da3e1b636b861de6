// Many tensors in one launch. The tensors are cut into chunks; a block takes one chunk and finds its tensors in two
// tables in device memory, which the host uploads when they change (kernels/src/optim/table.rs):
//   slots:  what belongs to one parameter: addresses, size, settings
//   chunks: for each block its slot and its place there
#pragma once

#include "common/few.cuh"

// Elements of a chunk, as table.rs has it.
constexpr u32 CHUNK = 1 << 14;
constexpr u32 THREADS = 256;
// Elements that a thread takes at once: 16 bytes of float32, 8 of bfloat16.
constexpr u32 QUAD = 4;

// Bits of Slot::flags.
constexpr u32 ALIGNED = 1;       // quads of all tensors lie at multiples of their size
constexpr u32 ADAPT = 2;         // LARS's ratio applies
constexpr u32 GRADIENT_BF16 = 4; // else float32
constexpr u32 UNTOUCHED = 8;     // nothing of the slot is touched while fewer steps than `start` were taken
constexpr u32 STILL = 16;        // its value is not, and the rate is 0

// One parameter; addresses of tensors that there are not are null.
struct alignas(16) Slot {
    float *value;
    const void *gradient;
    float *first;
    float *second;
    bf16 *low;
    float *average;
    u64 count; // elements of each
    float weight_decay;
    float rate_scale;
    u32 flags;
    u32 first_chunk; // place of its chunks in the table of chunks
    u32 chunks;
    u32 start; // see UNTOUCHED and STILL
};
static_assert(sizeof(Slot) == 80, "table.rs has the same");

// A block's work: elements index * CHUNK .. of a slot.
struct Chunk {
    u32 slot;
    u32 index;
};

// Elements of a slot's chunk.
__device__ __forceinline__ u32 elements_of(const Slot &slot, u32 index) {
    u64 left = slot.count - u64(index) * CHUNK;
    return left < CHUNK ? u32(left) : CHUNK;
}
