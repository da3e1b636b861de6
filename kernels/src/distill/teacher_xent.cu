// A student's cross-entropy with the mean of what the teacher says of other crops, and its gradient. Neither the teacher's
// probabilities nor the student's are in memory: both are made again from logits where they are used.
//
// A warp has an image and 32 packs of classes, DEEP times over. It makes the teacher's probabilities there once, in registers, and
// goes through the student's crops of the image, each of which is read once: whatever the number of crops, the teacher
// and the centre are read once. Forward a crop's sums relative to the largest logit among these classes go to `partial`, which
// teacher_xent_rows.cu puts together. Nobody waits for another warp.
//
// A row of crop c belongs to image (row % images), c = row / images; so do the teacher's, which has one crop or two. With
// two, crop c of the student is not compared with crop c of the teacher; with one, it is.

#include "distill/targets.cuh"

constexpr int WARPS = 4;
// Packs of a lane: 32 classes each in whole packs, fewer where packs are single elements.
template <int W> constexpr int DEEP = W == 1 ? 8 : 32 / W;

// e^x for x of at most 0, to float32's smallest normal number, below which it is 0.
__device__ __forceinline__ float exp_fast(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x * 1.44269504f));
    return y;
}

// Where a lane of a warp is: packs at first, first + 32 W, .. below k.
struct Place {
    u32 image, chunk, first;
};

template <int W> __device__ __forceinline__ Place place(u32 chunks) {
    const u32 warp = blockIdx.x * WARPS + warp_id(), image = warp / chunks, chunk = warp % chunks;
    return {image, chunk, (chunk * 32 * DEEP<W> + lane_id()) * W};
}

// The teacher's probabilities of an image at a lane's packs, for each of TEACHERS crops; zeros beyond k.
template <int W, int TEACHERS> struct Targets {
    float p[TEACHERS][DEEP<W>][W];

    __device__ __forceinline__ Targets(const element *teacher, const float *center, const float2 *rows, Temperature t,
                                       u32 image, u32 images, u32 first, u32 k) {
        float2 row[TEACHERS];
#pragma unroll
        for (int g = 0; g < TEACHERS; g++) row[g] = rows[g * images + image];
#pragma unroll
        for (int j = 0; j < DEEP<W>; j++) {
            const u32 at = first + j * 32 * W;
            float c[W] = {};
            if (at < k) load_center<W>(center, at, c);
#pragma unroll
            for (int g = 0; g < TEACHERS; g++) {
                float d[W] = {};
                if (at < k) load_scaled<W>(teacher + u64(g * images + image) * k + at, c, t, d);
#pragma unroll
                for (int i = 0; i < W; i++) p[g][j][i] = at < k ? expf(d[i] - row[g].x) * row[g].y : 0.0f;
            }
        }
    }

    // Called for each crop of the student in order: then the last of p is the sum over the teacher's other crops.
    __device__ __forceinline__ void advance(u32 crop) {
        if constexpr (TEACHERS == 2) {
            if (crop == 0 || crop > 2) return;
#pragma unroll
            for (int j = 0; j < DEEP<W>; j++)
#pragma unroll
                for (int i = 0; i < W; i++) {
                    const float first = p[0][j][i], second = p[1][j][i];
                    p[0][j][i] = second;
                    p[1][j][i] = crop == 1 ? first : first + second;
                }
        }
    }

    // What the student should predict.
    __device__ __forceinline__ float of(int j, int i) const { return p[TEACHERS - 1][j][i]; }
};

// A pack of the student's logits, or minus infinities.
__device__ __forceinline__ void load_or_void(const float *at, bool inside, float (&v)[4]) {
    float4 pack = make_float4(-INF, -INF, -INF, -INF);
    if (inside) pack = *reinterpret_cast<const float4 *>(at);
    v[0] = pack.x, v[1] = pack.y, v[2] = pack.z, v[3] = pack.w;
}
__device__ __forceinline__ void load_or_void(const bf16 *at, bool inside, float (&v)[8]) {
    constexpr u32 VOID = 0xff80ff80u;
    uint4 pack = make_uint4(VOID, VOID, VOID, VOID);
    if (inside) pack = *reinterpret_cast<const uint4 *>(at);
    const u32 words[4] = {pack.x, pack.y, pack.z, pack.w};
#pragma unroll
    for (int i = 0; i < 4; i++) {
        v[2 * i] = __uint_as_float(words[i] << 16);
        v[2 * i + 1] = __uint_as_float(words[i] & 0xffff0000u);
    }
}

// The student's logits of a lane, over its temperature; minus infinity beyond k.
template <int W>
__device__ __forceinline__ void load_student(const element *x, u32 first, u32 k, float inverse,
                                             float (&v)[DEEP<W>][W]) {
#pragma unroll
    for (int j = 0; j < DEEP<W>; j++) {
        const u32 at = first + j * 32 * W;
        if constexpr (W == PACK)
            load_or_void(x + at, at < k, v[j]);
        else
            v[j][0] = at < k ? to_float(x[at]) : -INF;
#pragma unroll
        for (int i = 0; i < W; i++) v[j][i] *= inverse;
    }
}

template <int W, int TEACHERS>
__device__ __forceinline__ void forward(const element *student, const element *teacher, const float *center,
                                        const float2 *rows, float4 *partial, u32 images, u32 crops, u32 k, u32 chunks,
                                        float inverse, Temperature t) {
    const Place at = place<W>(chunks);
    if (at.image >= images) return;
    Targets<W, TEACHERS> targets(teacher, center, rows, t, at.image, images, at.first, k);
    float weights[TEACHERS];
#pragma unroll
    for (int g = 0; g < TEACHERS; g++) {
        float sum = 0.0f;
#pragma unroll
        for (int j = 0; j < DEEP<W>; j++)
#pragma unroll
            for (int i = 0; i < W; i++) sum += targets.p[g][j][i];
        weights[g] = warp_sum(sum);
    }
    for (u32 crop = 0; crop < crops; crop++) {
        const u64 row = u64(crop) * images + at.image;
        targets.advance(crop);
        float v[DEEP<W>][W], own_top = -INF;
        load_student<W>(student + row * k, at.first, k, inverse, v);
#pragma unroll
        for (int j = 0; j < DEEP<W>; j++)
#pragma unroll
            for (int i = 0; i < W; i++) own_top = fmaxf(own_top, v[j][i]);
        const float top = warp_max(own_top), shift = top == -INF ? 0.0f : top;
        // One of the largest, which is exactly 1, is left out of the sum: log1p of the rest keeps small losses accurate.
        const u32 holders = __ballot_sync(ALL_LANES, own_top == top);
        bool holds = lane_id() == __ffs(holders) - 1 && top > -INF;
        float rest = 0.0f, product = 0.0f;
#pragma unroll
        for (int j = 0; j < DEEP<W>; j++)
#pragma unroll
            for (int i = 0; i < W; i++) {
                const float difference = v[j][i] - shift;
                const bool largest = holds && v[j][i] == top;
                holds = holds && !largest;
                rest += largest ? 0.0f : exp_fast(difference);
                product += targets.of(j, i) * difference;
            }
        // Nothing times infinity is nothing: where there are logits of minus infinity, again and with care.
        if (!(fabsf(product) < INF)) {
            product = 0.0f;
#pragma unroll
            for (int j = 0; j < DEEP<W>; j++)
#pragma unroll
                for (int i = 0; i < W; i++)
                    if (const float q = targets.of(j, i); q != 0.0f) product += q * (v[j][i] - shift);
        }
        rest = warp_sum(rest), product = warp_sum(product);
        float weight = weights[0];
        if constexpr (TEACHERS == 2)
            weight = (crop == 0 ? 0.0f : weights[0]) + (crop == 1 ? 0.0f : weights[1]);
        if (lane_id() == 0) partial[row * chunks + at.chunk] = make_float4(top, rest, product, weight);
    }
}

// partial: [crops images, chunks] of (largest, sum of e^(x - largest) but for one, sum of q (x - largest), sum of q), where x
// is the student's logit over its temperature (times `inverse`) and q what it should be; student: [crops images, k], teacher:
// [teachers images, k] with its rows: [teachers images] of (shift, factor), center: [k] or null
KERNEL __launch_bounds__(32 * WARPS) ENTRY(distill_xent_fwd)(const element *student, const element *teacher,
                                                             const float *center, const float2 *rows, float4 *partial,
                                                             u32 images, u32 crops, u32 teachers, u32 k, u32 chunks,
                                                             float inverse, Number temperature, u32 access) {
    const Temperature t(temperature);
    if (access && teachers == 2)
        forward<PACK, 2>(student, teacher, center, rows, partial, images, crops, k, chunks, inverse, t);
    else if (access)
        forward<PACK, 1>(student, teacher, center, rows, partial, images, crops, k, chunks, inverse, t);
    else if (teachers == 2)
        forward<1, 2>(student, teacher, center, rows, partial, images, crops, k, chunks, inverse, t);
    else
        forward<1, 1>(student, teacher, center, rows, partial, images, crops, k, chunks, inverse, t);
}

template <int W, int TEACHERS>
__device__ __forceinline__ void backward(const float *dloss, const element *student, const element *teacher,
                                         const float *center, const float2 *rows, const float2 *student_rows,
                                         element *dstudent, u32 images, u32 crops, u32 k, u32 chunks, float inverse,
                                         Temperature t) {
    const Place at = place<W>(chunks);
    if (at.image >= images) return;
    Targets<W, TEACHERS> targets(teacher, center, rows, t, at.image, images, at.first, k);
    for (u32 base = 0; base < crops; base += 32) {
        // Each lane reads what belongs to one of 32 crops.
        float own_scale = 0.0f;
        float2 own = {};
        if (const u32 crop = base + lane_id(); crop < crops) {
            const u32 row = crop * images + at.image;
            own_scale = dloss[row] * inverse, own = student_rows[row];
            if (own.x == -INF) own.x = own_scale = 0.0f; // nothing but minus infinity: no gradient
        }
        const u32 count = crops - base < 32 ? crops - base : 32;
        for (u32 i = 0; i < count; i++) {
            const float scale = __shfl_sync(ALL_LANES, own_scale, i), shift = __shfl_sync(ALL_LANES, own.x, i);
            const float factor = __shfl_sync(ALL_LANES, own.y, i);
            targets.advance(base + i);
            const u64 start = (u64(base + i) * images + at.image) * k;
            float v[DEEP<W>][W];
            load_student<W>(student + start, at.first, k, inverse, v);
#pragma unroll
            for (int j = 0; j < DEEP<W>; j++) {
#pragma unroll
                for (int e = 0; e < W; e++)
                    v[j][e] = scale * (factor * exp_fast(v[j][e] - shift) - targets.of(j, e));
                const u32 to = at.first + j * 32 * W;
                if (to >= k) continue;
                if constexpr (W == PACK)
                    store_pack_global(dstudent + start + to, v[j]);
                else
                    from_float(v[j][0], dstudent[start + to]);
            }
        }
    }
}

// dstudent: [crops images, k] from dloss: [crops images], forward's arguments, and student_rows: [crops images] of (largest
// logit, weight / sum of e^(x - largest))
KERNEL __launch_bounds__(32 * WARPS) ENTRY(distill_xent_bwd)(const float *dloss, const element *student,
                                                             const element *teacher, const float *center,
                                                             const float2 *rows, const float2 *student_rows,
                                                             element *dstudent, u32 images, u32 crops, u32 teachers,
                                                             u32 k, u32 chunks, float inverse, Number temperature,
                                                             u32 access) {
    const Temperature t(temperature);
    if (access && teachers == 2)
        backward<PACK, 2>(dloss, student, teacher, center, rows, student_rows, dstudent, images, crops, k, chunks, inverse, t);
    else if (access)
        backward<PACK, 1>(dloss, student, teacher, center, rows, student_rows, dstudent, images, crops, k, chunks, inverse, t);
    else if (teachers == 2)
        backward<1, 2>(dloss, student, teacher, center, rows, student_rows, dstudent, images, crops, k, chunks, inverse, t);
    else
        backward<1, 1>(dloss, student, teacher, center, rows, student_rows, dstudent, images, crops, k, chunks, inverse, t);
}
