// adamw.cu: one step of AdamW (Loshchilov and Hutter, arXiv 1711.05101, algorithm 2) over all tensors of a
// model in one launch, in float32, with the bf16 copy that the next forward pass reads and the moving
// average that a teacher network is.
//
// The table lists chunks of at most 1024 elements with the addresses of their parts of every tensor. A
// block of 256 threads takes one chunk, four elements a thread: 16 bytes at a time where the chunk's size
// is a multiple of four. Threads do not meet. Compiled without contraction, so the result has the same
// bits on every device.

typedef unsigned short u16;  // bf16 bits
typedef unsigned int u32;

struct Chunk {
    float* parameter;
    float* first;         // Moving average of the gradient.
    float* second;        // Moving average of its square.
    float* teacher;       // Moving average of the parameter, or null.
    u16* copy;            // The parameter in bf16.
    const float* gradient;
    int count;
    float decay;          // Weight decay of this tensor.
};

struct Step {
    float learning_rate;
    float beta1;
    float beta2;
    float epsilon;
    float inverse_bias1;  // 1 / (1 - beta1^t)
    float inverse_bias2;  // 1 / (1 - beta2^t)
    float teacher_momentum;
};

__device__ __forceinline__ u16 round_to_bf16(float x) {
    u16 bits;
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(bits) : "f"(x));
    return bits;
}

__device__ __forceinline__ void update(float& parameter, float& first, float& second, float gradient, float decay,
                                       const Step& step) {
    first = fmaf(step.beta1, first, (1.0f - step.beta1) * gradient);
    second = fmaf(step.beta2, second, (1.0f - step.beta2) * gradient * gradient);
    const float size = sqrtf(second * step.inverse_bias2) + step.epsilon;
    const float direction = first * step.inverse_bias1 / size;
    parameter = parameter - step.learning_rate * (direction + decay * parameter);
}

extern "C" __global__ void __launch_bounds__(256) adamw_step(
    const Chunk* __restrict__ chunks,  // [gridDim.x]
    const Step step) {
    const Chunk chunk = chunks[blockIdx.x];
    const int first = threadIdx.x * 4;
    if (chunk.count % 4 == 0) {
        if (first >= chunk.count) {
            return;
        }
        float4 p = *(float4*)(chunk.parameter + first);
        float4 m = *(float4*)(chunk.first + first);
        float4 v = *(float4*)(chunk.second + first);
        const float4 g = *(const float4*)(chunk.gradient + first);
        update(p.x, m.x, v.x, g.x, chunk.decay, step);
        update(p.y, m.y, v.y, g.y, chunk.decay, step);
        update(p.z, m.z, v.z, g.z, chunk.decay, step);
        update(p.w, m.w, v.w, g.w, chunk.decay, step);
        *(float4*)(chunk.parameter + first) = p;
        *(float4*)(chunk.first + first) = m;
        *(float4*)(chunk.second + first) = v;
        const ushort4 rounded = {round_to_bf16(p.x), round_to_bf16(p.y), round_to_bf16(p.z), round_to_bf16(p.w)};
        *(ushort4*)(chunk.copy + first) = rounded;
        if (chunk.teacher != nullptr) {
            float4 t = *(float4*)(chunk.teacher + first);
            t.x = fmaf(step.teacher_momentum, t.x - p.x, p.x);
            t.y = fmaf(step.teacher_momentum, t.y - p.y, p.y);
            t.z = fmaf(step.teacher_momentum, t.z - p.z, p.z);
            t.w = fmaf(step.teacher_momentum, t.w - p.w, p.w);
            *(float4*)(chunk.teacher + first) = t;
        }
    } else {
        for (int i = threadIdx.x; i < chunk.count; i += blockDim.x) {
            float p = chunk.parameter[i];
            float m = chunk.first[i];
            float v = chunk.second[i];
            update(p, m, v, chunk.gradient[i], chunk.decay, step);
            chunk.parameter[i] = p;
            chunk.first[i] = m;
            chunk.second[i] = v;
            chunk.copy[i] = round_to_bf16(p);
            if (chunk.teacher != nullptr) {
                chunk.teacher[i] = fmaf(step.teacher_momentum, chunk.teacher[i] - p, p);
            }
        }
    }
}
