// Views of images: crop and resize, flip, colour jitter, grey, blur, solarize, normalise, from bytes to the
// element type.
//
// A block makes one view of one sample after another. The image between the steps is float32 and lies in shared memory
// (augment_views), or where it is too large in the block's part of a workspace (augment_large_views); it leaves the
// block only as the finished view. A strip of rows, resized in one direction, the bytes that it is made of where they
// fit (stage.cuh), and the weights of the resize are in shared memory; they are never stored for a whole image.
//
// In shared memory an image is [height, width, C]; in the workspace [C, height, width], so that a warp that takes
// neighbouring pixels takes whole sectors, and what reads a value more than once (the blur along the rows) has it in
// shared memory. Arithmetic is that of the CPU's cpu.rs, operation for
// operation, compiled without contraction, so that results have its bits; a bf16 result is rounded once.
//
// A step ends with a barrier where the next one reads what other threads wrote. The blur goes down a column with one
// thread, which overwrites what it has read; along the rows it is read only.
//
// A record that does not describe a view of an image inside the buffer gives a view of NaN and reads nothing.

#include "augment/blur.cuh"
#include "augment/color.cuh"
#include "augment/resample.cuh"
#include "augment/stage.cuh"
#include "common/reduce.cuh"

// packed.rs has the same; weights of the blur follow.
struct Record {
    u64 offset;
    u32 image[2];
    u32 crop[4];
    float jitter[4];
    float mean[3], std[3];
    u32 flags, taps;
};
static_assert(sizeof(Record) == 80, "as in packed.rs");
enum { FLIP = 1, JITTER = 2, GREY = 4, SOLARIZE = 8, BICUBIC = 16, ORDER = 8 };

// cuda.rs has the same.
struct Sizes {
    u64 image_bytes;    // of the buffer
    u32 height, width;  // of a view
    u32 items;          // views times samples
    u32 record;         // bytes
    u32 column_weights; // floats of the parts of shared memory
    u32 row_weights;
    u32 strip;
    u32 padding;
};

struct Shared {
    Outputs rows, columns;  // [height], [width]
    float *column_weights;  // [taps, width]: lanes of a warp have neighbouring columns
    float *row_weights;     // [rows of a strip, taps]; then the weights of the blur
    float *strip;           // [rows of a strip, width of the crop, C], and the bytes of these rows; then the rows that
                            // the blur remembers; then rows of the image
    float *image;           // [height, width, C]
};

// How the values of pixel i lie in an image of so many pixels: C neighbours, or one in each plane.
template <int C, bool LARGE> struct Place {
    u32 plane;
    __device__ __forceinline__ explicit Place(u32 pixels) : plane(LARGE ? pixels : 1) {}
    __device__ __forceinline__ void load(const float *image, u32 i, float (&p)[C]) const {
#pragma unroll
        for (int c = 0; c < C; c++) p[c] = image[i * (LARGE ? 1 : C) + c * plane];
    }
    __device__ __forceinline__ void store(float *image, u32 i, const float (&p)[C]) const {
#pragma unroll
        for (int c = 0; c < C; c++) image[i * (LARGE ? 1 : C) + c * plane] = p[c];
    }
};

__device__ __forceinline__ Shared parts(const Sizes &s) {
    extern __shared__ __align__(16) double dynamic[];
    Shared parts;
    parts.rows.total = dynamic;
    parts.columns.total = parts.rows.total + s.height;
    parts.rows.start = reinterpret_cast<u32 *>(parts.columns.total + s.width);
    parts.rows.count = parts.rows.start + s.height;
    parts.columns.start = parts.rows.count + s.height;
    parts.columns.count = parts.columns.start + s.width;
    parts.column_weights = reinterpret_cast<float *>(parts.columns.count + s.width);
    parts.row_weights = parts.column_weights + s.column_weights;
    parts.strip = parts.row_weights + s.row_weights;
    parts.image = parts.strip + s.strip;
    return parts;
}

__device__ __forceinline__ bool is_valid(const Record &r, const Sizes &s, int channels) {
    const u32 limit = 1u << 24; // so that no product overflows
    const u64 bytes = u64(r.image[0]) * r.image[1] * channels;
    return r.image[0] <= limit && r.image[1] <= limit && bytes <= s.image_bytes && r.offset <= s.image_bytes - bytes &&
           r.crop[2] > 0 && r.crop[2] <= r.image[0] && r.crop[0] <= r.image[0] - r.crop[2] && r.crop[3] > 0 &&
           r.crop[3] <= r.image[1] && r.crop[1] <= r.image[1] - r.crop[3] &&
           r.taps <= (s.row_weights + 3 - 2 * ROWS) / 2 && r.taps <= (s.record - sizeof(Record)) / sizeof(float);
}

// The weights of the rows first .. first + count of the image; nothing if they do not fit.
__device__ __forceinline__ void fill_row_weights(const Filter &filter, const Shared &m, u32 first, u32 count) {
    const u32 bound = filter.bound();
#pragma unroll 1
    for (Walk at(bound); at.row < count; at.next()) {
        const u32 y = first + at.row;
        if (at.column < m.rows.count[y])
            m.row_weights[at.row * bound + at.column] =
                filter.weight(m.rows.start[y] + at.column, y, m.rows.total[y]);
    }
}

// strip = `count` rows of the resized image, `span` values of each: sums over rows of bytes, `stride` bytes apart, the
// first of which is row `origin` of the crop. A warp makes N times 32 neighbouring values of a row, with weights from
// the table or computed where they are used.
template <int N, bool TABLED>
__device__ __forceinline__ void combine_rows(const Filter &filter, const Shared &m, const u8 *bytes, u32 stride,
                                             u32 origin, u32 top, u32 count, u32 span) {
#pragma unroll 1
    for (Walk at((span + 32 * N - 1) / (32 * N), warp_id(), blockDim.x / 32); at.row < count; at.next()) {
        const u32 y = top + at.row, first = at.column * (32 * N) + lane_id(), taps = m.rows.count[y];
        const u8 *source = bytes + u64(m.rows.start[y] - origin) * stride + first;
        float sums[N] = {};
        const auto take = [&](float weight) {
#pragma unroll
            for (int i = 0; i < N; i++)
                if (first + 32 * i < span) sums[i] += weight * float(source[32 * i]);
            source += stride;
        };
        const float *weights = m.row_weights + at.row * filter.bound();
#pragma unroll 1
        for (u32 k = 0; k < taps; k++)
            take(TABLED ? weights[k] : filter.weight(m.rows.start[y] + k, y, m.rows.total[y]));
#pragma unroll
        for (int i = 0; i < N; i++)
            if (first + 32 * i < span) m.strip[at.row * span + first + 32 * i] = over_255(sums[i]);
    }
}

template <int C> __device__ __forceinline__ void add(float (&sums)[C], float weight, const float *source) {
#pragma unroll
    for (int c = 0; c < C; c++) sums[c] += weight * source[c];
}

// image = the crop, resized, mirrored if asked, in 0 ..= 1. Ends with a barrier.
//
// Strip by strip: rows are combined first, all bytes of a row at once, then columns. The bytes of a strip lie behind it
// where that leaves half of the rows that it has without them; else they are read where they are, once for each row
// that sees them. A crop wider than the strip is cut; sums over its columns go on from cut to cut in the image, so that
// their order is the same.
template <int C, bool LARGE>
__device__ __forceinline__ void resize(const u8 *pixels, const Record &r, const Sizes &s, const Shared &m,
                                       float *image) {
    const u32 height = s.height, width = s.width, crop_width = r.crop[3];
    const bool flip = r.flags & FLIP;
    const Place<C, LARGE> place(height * width);
    __shared__ Filter rows, columns;
    __shared__ Stage stage;
    __shared__ u32 staged; // rows of a strip whose bytes fit behind it
    if (threadIdx.x == 0) rows.prepare(r.crop[2], height, r.flags & BICUBIC);
    if (threadIdx.x == 32) columns.prepare(crop_width, width, r.flags & BICUBIC);
    if (threadIdx.x == 64) stage.prepare(pixels, s.image_bytes, r.offset, r.image[1] * C, r.crop, C);
    __syncthreads(); // filters are there
    if (threadIdx.x == blockDim.x - 1) staged = stage.rows(rows, height, s.strip);
#pragma unroll 1
    for (u32 i = threadIdx.x; i < height + width; i += blockDim.x) {
        if (i < height) m.rows.fill(rows, i);
        else m.columns.fill(columns, i - height);
    }
    __syncthreads(); // totals are there

    const u32 row_bound = rows.bound(), column_bound = columns.bound();
    const bool rows_fit = row_bound <= s.row_weights;
    const bool columns_fit = u64(column_bound) * width <= s.column_weights;
    const u32 cut = min(crop_width, s.strip / C);
    u32 strip = min(height, s.strip / (cut * C));
    if (rows_fit) strip = min(strip, s.row_weights / row_bound);
    const bool is_staged = rows_fit && cut == crop_width && 2 * staged >= strip;
    if (is_staged) strip = min(strip, staged);
    u8 *bytes = reinterpret_cast<u8 *>(m.strip + Stage::behind(strip * crop_width * C));
    if (columns_fit) {
#pragma unroll 1
        for (Walk at(width); at.row < column_bound; at.next())
            if (at.row < m.columns.count[at.column])
                m.column_weights[at.row * width + at.column] = columns.weight(
                    m.columns.start[at.column] + at.row, at.column, m.columns.total[at.column]);
    }
    if (rows_fit) fill_row_weights(rows, m, 0, strip);

    for (u32 top = 0; top < height; top += strip) {
        const u32 count = min(strip, height - top);
        for (u32 left = 0; left < crop_width; left += cut) {
            const u32 right = min(left + cut, crop_width), span = (right - left) * C;
            const u32 origin = m.rows.start[top];
            if (is_staged)
                stage.load(bytes, origin, m.rows.start[top + count - 1] + m.rows.count[top + count - 1] - origin);
            __syncthreads(); // weights and bytes are there, and the strip before was read
            const u8 *source = stage.crop + left * C;
            if (is_staged && span <= 64)
                combine_rows<1, true>(rows, m, bytes + stage.phase(origin), stage.pitch, origin, top, count, span);
            else if (is_staged)
                combine_rows<4, true>(rows, m, bytes + stage.phase(origin), stage.pitch, origin, top, count, span);
            else if (!rows_fit) combine_rows<1, false>(rows, m, source, stage.stride, 0, top, count, span);
            else if (span <= 64) combine_rows<1, true>(rows, m, source, stage.stride, 0, top, count, span);
            else combine_rows<4, true>(rows, m, source, stage.stride, 0, top, count, span);
            __syncthreads(); // the strip is there
#pragma unroll 1
            for (Walk at(width); at.row < count; at.next()) {
                const u32 x = at.column, start = m.columns.start[x], end = start + m.columns.count[x];
                const u32 target = (top + at.row) * width + (flip ? width - 1 - x : x);
                float sums[C] = {};
                if (left > 0) place.load(image, target, sums);
                const u32 first = max(start, left), last = min(end, right);
                const float *source = m.strip + at.row * span + (first - left) * C;
                if (columns_fit) {
                    const float *weights = m.column_weights + (first - start) * width + x;
                    for (u32 j = first; j < last; j++, weights += width, source += C)
                        add<C>(sums, *weights, source);
                } else {
#pragma unroll 1
                    for (u32 j = first; j < last; j++, source += C)
                        add<C>(sums, columns.weight(j, x, m.columns.total[x]), source);
                }
                if (right == crop_width) {
#pragma unroll
                    for (int c = 0; c < C; c++) sums[c] = unit(sums[c]);
                }
                place.store(image, target, sums);
            }
            // The last reader of the weights of these rows came before the barrier above.
            if (rows_fit && right == crop_width && top + count < height)
                fill_row_weights(rows, m, top + count, min(strip, height - top - count));
        }
    }
    __syncthreads(); // the image is there
}

// The mean over the grey image as color.rs has it, to the bit, in every thread; `sum` is this thread's part of the sum.
//
// The CPU adds in eight lanes, one pixel after another. Here many threads add in another order; both are within
// `bound` of the true mean, so where all numbers that near round to one float32 it is the CPU's. Elsewhere (one image
// of thousands) a warp repeats the CPU's order.
template <int C, bool LARGE> __device__ float mean_of(double sum, const float *image, u32 pixels) {
    __shared__ double part[32];
    __shared__ float result;
    sum = warp_sum(sum);
    if (lane_id() == 0) part[warp_id()] = sum;
    __syncthreads(); // part is written
    if (warp_id() == 0) {
        double mean = 0.0;
#pragma unroll 1
        for (u32 w = 0; w < blockDim.x / 32; w++) mean += part[w];
        mean /= double(pixels);
        // Of either order at most this many roundings, each of 2^-53, of terms that are not negative.
        const double bound = (double(pixels) / 4.0 + 64.0) * 0x1p-53;
        float low = float(mean * (1.0 - bound));
        const float high = float(mean * (1.0 + bound));
        if (low != high) {
            double lane = 0.0;
            if (lane_id() < 8)
#pragma unroll 1
                for (u32 i = lane_id(); i < pixels; i += 8) {
                    float p[C];
                    Place<C, LARGE>(pixels).load(image, i, p);
                    lane += double(grey(p));
                }
            double total = 0.0;
#pragma unroll 1
            for (int i = 0; i < 8; i++) total += __shfl_sync(ALL_LANES, lane, i);
            low = float(total / double(pixels));
        }
        if (lane_id() == 0) result = low;
    }
    __syncthreads(); // the result is there
    return result;
}

// Jitter and grey, in place. Ends with a barrier.
template <int C, bool LARGE>
__device__ __forceinline__ void colour(const Record &r, u32 pixels, float *image) {
    if (!(r.flags & (JITTER | GREY))) return;
    const u32 order = r.flags >> ORDER;
    const float factors[4] = {r.jitter[0], r.jitter[1], r.jitter[2], r.jitter[3]};
    const Place<C, LARGE> place(pixels);
    int next = 4; // of the jitter's order, after contrast
    float mean = 0.0f;
    if (r.flags & JITTER) {
        next = 0;
        while (next < 4 && (order >> (2 * next) & 3) != 1) next++;
        double sum = 0.0;
#pragma unroll 1
        for (u32 i = threadIdx.x; i < pixels; i += blockDim.x) {
            float p[C];
            place.load(image, i, p);
            jitter(p, order, 0, next, factors);
            place.store(image, i, p);
            sum += double(grey(p));
        }
        mean = mean_of<C, LARGE>(sum, image, pixels);
    }
#pragma unroll 1
    for (u32 i = threadIdx.x; i < pixels; i += blockDim.x) {
        float p[C];
        place.load(image, i, p);
        if (r.flags & JITTER) {
            if (next < 4) mix(p, factors[1], mean);
            jitter(p, order, next + 1, 4, factors);
        }
        if (C == 3 && r.flags & GREY) to_grey(p);
        place.store(image, i, p);
    }
    __syncthreads(); // the image is complete again
}

// `count` rows of the view = these rows of the image, [count, width, C] in shared memory, blurred along the rows,
// solarized, normalised
template <int C>
__device__ __forceinline__ void finish_rows(const Record &r, const float *weights, u32 width, u32 count,
                                            const float *image, element *view) {
    const int half = int(r.taps) - 1, last = int(width);
    const u32 row = width * C;
    const float *middle = weights + half + ROWS - 1;
    u32 out = threadIdx.x;
#pragma unroll 1
    for (Walk at(row); at.row < count; at.next(), out += blockDim.x) {
        const int x = at.column / C, c = at.column % C;
        const float *source = image + at.row * row + c;
        float v;
        if (r.taps == 0) {
            v = source[x * C];
        } else {
            v = 0.0f;
            if (x >= half && x + half < last) {
                for (int k = -half; k <= half; k++) v += middle[k] * source[(x + k) * C];
            } else {
                for (int k = -half; k <= half; k++) v += middle[k] * source[reflect(x + k, last) * C];
            }
            v = unit(v);
        }
        if (r.flags & SOLARIZE) v = v >= 0.5f ? 1.0f - v : v;
        const float mean = c == 0 ? r.mean[0] : (c == 1 ? r.mean[1] : r.mean[2]);
        const float deviation = c == 0 ? r.std[0] : (c == 1 ? r.std[1] : r.std[2]);
        from_float((v - mean) / deviation, view[out]);
    }
}

// view = the image, finished. What lies in the workspace comes through the strip, which has room for two rows at least.
template <int C, bool LARGE>
__device__ __forceinline__ void finish(const Record &r, const Sizes &s, const Shared &m, const float *image,
                                       element *view) {
    if (!LARGE) return finish_rows<C>(r, m.row_weights, s.width, s.height, image, view);
    const Place<C, true> place(s.height * s.width);
    const u32 rows = s.strip / (s.width * C);
#pragma unroll 1
    for (u32 top = 0; top < s.height; top += rows) {
        const u32 count = min(rows, s.height - top), start = top * s.width;
#pragma unroll 1
        for (u32 i = threadIdx.x; i < count * s.width; i += blockDim.x) {
            float p[C];
            place.load(image, start + i, p);
#pragma unroll
            for (int c = 0; c < C; c++) m.strip[i * C + c] = p[c];
        }
        __syncthreads(); // the rows are there
        finish_rows<C>(r, m.row_weights, s.width, count, m.strip, view + u64(start) * C);
        __syncthreads(); // the rows were read
    }
}

// pixels: [image_bytes]; records: [items, record]; out: [items, height, width, C];
// workspace: [blocks, C, height, width]
template <int C, bool LARGE>
__device__ __forceinline__ void views(const u8 *pixels, const u8 *records, element *out, float *workspace, Sizes s) {
    __shared__ Record record;
    const Shared m = parts(s);
    const u32 count = s.height * s.width;
    float *image = LARGE ? workspace + u64(blockIdx.x) * count * C : m.image;
    for (u32 item = blockIdx.x; item < s.items; item += gridDim.x) {
        const u8 *bytes = records + u64(item) * s.record; // at any address
        __syncthreads(); // the view before was finished
        if (reinterpret_cast<u64>(bytes) % 4 == 0) {
            if (threadIdx.x < sizeof(Record) / 4)
                reinterpret_cast<u32 *>(&record)[threadIdx.x] = reinterpret_cast<const u32 *>(bytes)[threadIdx.x];
        } else if (threadIdx.x < sizeof(Record)) {
            reinterpret_cast<u8 *>(&record)[threadIdx.x] = bytes[threadIdx.x];
        }
        __syncthreads(); // the record is there
        const Record &r = record;
        if (!is_valid(r, s, C)) {
            for (u32 i = threadIdx.x; i < count * C; i += blockDim.x)
                from_float(__uint_as_float(0x7fc00000u), out[u64(item) * count * C + i]);
            continue;
        }
        resize<C, LARGE>(pixels, r, s, m, image);
        colour<C, LARGE>(r, count, image);
        if (r.taps > 0) {
            load_weights(records + u64(item) * s.record + sizeof(Record), r.taps, m.row_weights);
            __syncthreads(); // the weights are there
            blur_columns<C, LARGE>(m.row_weights, r.taps, s.height, s.width, image, m.strip, s.strip);
        }
        finish<C, LARGE>(r, s, m, image, out + u64(item) * count * C);
    }
}

#define VIEWS(name, channels, large)                                                                                   \
    KERNEL __launch_bounds__(256, 3)                                                                                   \
        ENTRY(name)(const u8 *pixels, const u8 *records, element *out, float *workspace, Sizes s) {                    \
        views<channels, large>(pixels, records, out, workspace, s);                                                    \
    }

VIEWS(augment_views_grey, 1, false)
VIEWS(augment_views_rgb, 3, false)
VIEWS(augment_large_views_grey, 1, true)
VIEWS(augment_large_views_rgb, 3, true)
