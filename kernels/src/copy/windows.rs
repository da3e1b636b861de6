//! Windows of planes: launchers, CPU backend and cases.

use crate::cuda::THREADS;
use crate::divisor::{Divisor, side};
use crate::parallel::{GRAIN, chunks};
use engine::cuda::{Kernel, Launch};
use engine::device::common;
use engine::{DType, Device, Element, Error, Result, Tensor, memory};
use half::bf16;

pub(crate) mod kernels {
    crate::cuda::kernels! {
        family: "copy", file: "windows.cu", options: [];
        WINDOWS_4 = "copy_windows_4";
        WINDOWS_2 = "copy_windows_2";
        WINDOWS_1 = "copy_windows_1";
    }
}

const NAME: &str = "windows";

/// Windows of `size` (rows, columns) of planes x [N, H, W] of any type: `at`, i32 [M, 3], has the plane, the first row and the
/// first column of each. [M, rows, columns]; pixels are moved, nothing is computed.
///
/// A window that is not inside a plane is an error on the CPU. On CUDA devices, where nobody looks at places in time, it is NaN,
/// or 0 in integers.
#[track_caller]
pub fn windows(x: &Tensor, at: &Tensor, size: [usize; 2]) -> Result<Tensor> {
    let _op = memory::operation(NAME);
    let &[planes, height, width] = x.shape() else {
        return Err(Error::shape(NAME, "x must be planes [N, H, W]").argument("x", x));
    };
    at.require_dtype(NAME, "at", DType::I32)?;
    let count = at.shape().first().copied().unwrap_or(0);
    at.require_shape(NAME, "at", &[count, 3])?;
    let [rows, columns] = size;
    if rows > height || columns > width {
        let text = format!("a window of {rows} x {columns} is larger than the planes");
        return Err(Error::shape(NAME, text).argument("x", x));
    }
    let shape = [count, rows, columns];
    match common(NAME, &["x", "at"], &[x, at])? {
        Device::Cuda(_) => on_device(x, at, &shape),
        Device::Cpu => {
            let limits = [planes, height - rows + 1, width - columns + 1];
            let places = at.as_slice::<i32>()?;
            for (m, place) in places.chunks_exact(3).enumerate() {
                let inside = place.iter().zip(limits).all(|(&p, n)| usize::try_from(p).is_ok_and(|p| p < n));
                if !inside {
                    let text = format!("window {m} is at {place:?}, where there are {limits:?} places");
                    return Err(Error::value(NAME, text).argument("x", x).argument("at", at));
                }
            }
            let mut out = Tensor::empty(&shape, x.dtype(), Device::Cpu)?;
            match x.dtype() {
                DType::F32 => on_host::<f32>(x, places, size, &mut out)?,
                DType::BF16 => on_host::<bf16>(x, places, size, &mut out)?,
                DType::I32 => on_host::<i32>(x, places, size, &mut out)?,
                DType::U8 => on_host::<u8>(x, places, size, &mut out)?,
            }
            Ok(out)
        }
    }
}

/// Windows whose places are inside.
fn on_host<T: Element>(
    x: &Tensor,
    places: &[i32],
    [rows, columns]: [usize; 2],
    out: &mut Tensor,
) -> Result<()> {
    let (height, width) = (x.shape()[1], x.shape()[2]);
    let (x, out) = (x.as_slice::<T>()?, out.as_mut_slice::<T>()?);
    if out.is_empty() {
        return Ok(());
    }
    let window = rows * columns;
    chunks(out, (GRAIN / window).max(1) * window, |start, out| {
        let places = places[3 * (start / window)..].chunks_exact(3);
        for (out, place) in out.chunks_exact_mut(window).zip(places) {
            let [plane, top, left] = [0, 1, 2].map(|i| place[i] as usize);
            for (i, to) in out.chunks_exact_mut(columns).enumerate() {
                to.copy_from_slice(&x[(plane * height + top + i) * width + left..][..columns]);
            }
        }
    });
    Ok(())
}

#[track_caller]
fn on_device(x: &Tensor, at: &Tensor, shape: &[usize; 3]) -> Result<Tensor> {
    let (planes, height, width) = (x.shape()[0], x.shape()[1], x.shape()[2]);
    let mut out = Tensor::empty(shape, x.dtype(), x.device())?;
    if out.is_empty() {
        return Ok(out);
    }
    let (kernel, missing): (&'static Kernel, u32) = match x.dtype() {
        DType::F32 => (&kernels::WINDOWS_4, 0x7fc0_0000),
        DType::I32 => (&kernels::WINDOWS_4, 0),
        DType::BF16 => (&kernels::WINDOWS_2, 0x7fc0),
        DType::U8 => (&kernels::WINDOWS_1, 0),
    };
    let [_, rows, columns] = *shape;
    let elements = out.len();
    let bytes = super::bytes(elements, x.dtype().size()) + 4 * at.len();
    Launch::new(kernel, x.device())?
        .read(x)?
        .read(at)?
        .write(&mut out)?
        .value(elements as u64)
        .value(planes as u64)
        .value(side(NAME, height)?)
        .value(side(NAME, width)?)
        .value(side(NAME, height - rows + 1)?)
        .value(side(NAME, width - columns + 1)?)
        .value(Divisor::new(NAME, rows * columns)?)
        .value(Divisor::new(NAME, columns)?)
        .value(missing)
        .bytes(bytes)
        .grid(elements.div_ceil(super::cuda::UNITS * THREADS))
        .block(THREADS)
        .run()?;
    Ok(out)
}

/// Planes, sizes of windows and numbers of windows: one pixel, whole planes, rows of odd lengths, none.
pub(super) const CASES: [([usize; 3], [usize; 2], usize); 8] = [
    ([1, 1, 1], [1, 1], 1),
    ([3, 5, 7], [5, 7], 4),
    ([4, 28, 28], [8, 8], 36),
    ([2, 33, 31], [7, 13], 50),
    ([5, 9, 130], [1, 129], 11),
    ([2, 12, 12], [4, 3], 700),
    ([2, 3, 3], [0, 2], 4),
    ([2, 3, 3], [2, 2], 0),
];

/// Places of `count` windows, the first and last that there are among them.
pub(super) fn places(
    [planes, height, width]: [usize; 3],
    [rows, columns]: [usize; 2],
    count: usize,
) -> Vec<i32> {
    let limits = [planes, height - rows + 1, width - columns + 1];
    let place = |m: usize, d: usize| match m {
        0 => 0,
        1 => limits[d] - 1,
        _ => (m * (7 + 4 * d) + 3 * d) % limits[d],
    };
    (0..count).flat_map(|m| [0, 1, 2].map(|d| place(m, d) as i32)).collect()
}
