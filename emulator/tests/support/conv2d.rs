//! Direct convolution with a table of taps in constant memory.

use super::case::Case;
use super::compare::{Bounded, Bytes, Element, Expected};
use super::random::Stream;

/// Sizes of a convolution with a square window.
#[derive(Clone, Copy)]
struct Shape {
    images: usize,
    height: usize,
    width: usize,
    channels: usize,
    outputs: usize,
    window: usize,
    stride: usize,
    padding: usize,
}

pub fn cases() -> Vec<Case> {
    let sizes = [
        [1, 1, 1, 1, 1, 1, 1, 0],
        [2, 5, 7, 3, 5, 3, 1, 1],
        [1, 8, 8, 4, 8, 3, 2, 1],
        [3, 6, 5, 8, 3, 1, 1, 0],
        [1, 9, 9, 3, 16, 7, 2, 3],
        [2, 4, 4, 12, 7, 5, 1, 2],
    ];
    sizes.map(case).to_vec()
}

fn case([images, height, width, channels, outputs, window, stride, padding]: [usize; 8]) -> Case {
    let shape = Shape { images, height, width, channels, outputs, window, stride, padding };
    let out_height = (height + 2 * padding - window) / stride + 1;
    let out_width = (width + 2 * padding - window) / stride + 1;
    let taps = window * window;
    let mut random = Stream::new((height * width * channels * outputs) as u64);
    let x = random.floats(images * height * width * channels, 1.0);
    let filter = random.floats(taps * channels * outputs, 0.5);
    let bias = random.floats(outputs, 1.0);
    let y = reference(&x, &filter, &bias, shape, out_height, out_width);
    let sizes = [images, height, width, channels, outputs, out_height, out_width, taps, stride, padding];
    let sizes: Vec<i32> = sizes.map(|size| size as i32).to_vec();
    let table: Vec<i32> = (0..taps).flat_map(|t| [(t / window) as i32, (t % window) as i32]).collect();
    let count = y.len();
    let mut case = Case::new(
        "conv2d.cu",
        include_str!("../kernels/conv2d.cu"),
        "conv2d_fwd",
        format!(
            "{images}x{height}x{width}x{channels} to {outputs}, window {window} stride {stride} padding {padding}"
        ),
    )
    .launch([count.div_ceil(128) as u32, 1, 1], [128, 1, 1])
    .input("x", &x)
    .input("filter", &filter)
    .input("bias", &bias)
    .output("y", count * 4, Expected::Close(Element::F32, y))
    .value(&sizes[..])
    .barriers(0);
    case.cost.written = Some(count as u64 * 4);
    case.variables.push(("taps", table.bytes()));
    case
}

/// Values with bounds: a unit in the last place a product, of the sum of magnitudes.
fn reference(
    x: &[f32],
    filter: &[f32],
    bias: &[f32],
    s: Shape,
    out_height: usize,
    out_width: usize,
) -> Bounded {
    let mut y = Vec::new();
    for i in 0..s.images * out_height * out_width * s.outputs {
        let (output, pixel) = (i % s.outputs, i / s.outputs);
        let (q, p, image) =
            (pixel % out_width, pixel / out_width % out_height, pixel / out_width / out_height);
        let mut sum = f64::from(bias[output]);
        let mut magnitude = sum.abs();
        for tap in 0..s.window * s.window {
            let row = (p * s.stride + tap / s.window).checked_sub(s.padding).filter(|&row| row < s.height);
            let column =
                (q * s.stride + tap % s.window).checked_sub(s.padding).filter(|&column| column < s.width);
            if let (Some(row), Some(column)) = (row, column) {
                for c in 0..s.channels {
                    let a = f64::from(x[((image * s.height + row) * s.width + column) * s.channels + c]);
                    let b = f64::from(filter[(tap * s.channels + c) * s.outputs + output]);
                    sum += a * b;
                    magnitude += (a * b).abs();
                }
            }
        }
        let products = (s.window * s.window * s.channels + 1) as f64;
        y.push((sum, magnitude * products * 2f64.powi(-24)));
    }
    y
}
