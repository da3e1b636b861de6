// conv2d.cu: y = conv(x, filter) + bias, NHWC, float32, for small images and filters: one thread an output
// element, no shared memory.
//
// The host writes the table of taps, one an element of the filter's window: how far the input pixel lies
// from the window's corner. It sits in constant memory, where all threads of a warp read the same entry.
// Neighbouring threads compute neighbouring output channels of one pixel: they read the same input and
// neighbouring weights. Threads do not meet.

#define MAX_TAPS 49

struct Tap {
    int row;
    int column;
};

struct Shape {
    int images, height, width, channels;
    int outputs, out_height, out_width;
    int taps, stride, padding;
};

__constant__ Tap taps[MAX_TAPS];

extern "C" __global__ void __launch_bounds__(128, 4) conv2d_fwd(
    const float* __restrict__ x,       // [images, height, width, channels]
    const float* __restrict__ filter,  // [taps, channels, outputs]
    const float* __restrict__ bias,    // [outputs]
    float* __restrict__ y,             // [images, out_height, out_width, outputs]
    const Shape shape) {
    const int index = blockIdx.x * blockDim.x + threadIdx.x;
    const int output = index % shape.outputs;
    const int pixel = index / shape.outputs;
    const int column = pixel % shape.out_width * shape.stride - shape.padding;
    const int row = pixel / shape.out_width % shape.out_height * shape.stride - shape.padding;
    const int image = pixel / shape.out_width / shape.out_height;
    if (image >= shape.images) {
        return;
    }
    float sum = bias[output];
    for (int t = 0; t < shape.taps; t++) {
        const int r = row + taps[t].row;
        const int c = column + taps[t].column;
        if (r < 0 || r >= shape.height || c < 0 || c >= shape.width) {
            continue;
        }
        const float* in = x + ((long long)(image * shape.height + r) * shape.width + c) * shape.channels;
        const float* weight = filter + (long long)t * shape.channels * shape.outputs + output;
        int channel = 0;
        if (shape.channels % 4 == 0) {
            for (; channel < shape.channels; channel += 4) {
                const float4 four = *(const float4*)(in + channel);
                sum = fmaf(four.x, weight[(channel + 0) * shape.outputs], sum);
                sum = fmaf(four.y, weight[(channel + 1) * shape.outputs], sum);
                sum = fmaf(four.z, weight[(channel + 2) * shape.outputs], sum);
                sum = fmaf(four.w, weight[(channel + 3) * shape.outputs], sum);
            }
        } else {
            for (; channel < shape.channels; channel++) {
                sum = fmaf(in[channel], weight[channel * shape.outputs], sum);
            }
        }
    }
    y[index] = sum;
}
