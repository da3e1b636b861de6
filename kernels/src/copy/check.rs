//! The CUDA kernels against the references: moved elements are equal, in every element type.

use super::cases::{Case, cases};
use super::*;
use crate::array::Array;
use crate::check::{check_launcher, each, guarded, misaligned, on_device};

/// An error unless both have the same elements, NaN equal to NaN.
#[track_caller]
fn equal(what: &str, found: &Tensor, expected: &Tensor) -> Result<()> {
    found.require_dtype(what, "result", expected.dtype())?;
    found.require_shape(what, "result", expected.shape())?;
    let same = match found.dtype() {
        DType::I32 => found.to_vec::<i32>()? == expected.to_vec::<i32>()?,
        DType::U8 => found.to_vec::<u8>()? == expected.to_vec::<u8>()?,
        DType::F32 | DType::BF16 => {
            let (a, b) = (Array::<f64>::from_tensor(found)?.data, Array::<f64>::from_tensor(expected)?.data);
            a.iter().zip(&b).all(|(a, b)| a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan()))
        }
    };
    match same {
        true => Ok(()),
        false => Err(Error::value(what, "other elements").with("dtype", expected.dtype())),
    }
}

/// A view of a tensor on the device: the strides and the offset of `view`, a CPU tensor of which `whole` is everything.
fn same_view(case: &Case, whole: &Tensor) -> Result<Tensor> {
    let mut x = whole.clone();
    for (d, &n) in case.shape.iter().enumerate() {
        x = x.narrow(d, case.margin, n)?;
    }
    x.permute(&case.order)
}

fn check_view<T: Element>(device: Device, case: &Case, value: fn(usize) -> T) -> Result<()> {
    let view = case.view(value)?;
    let expected = Tensor::from_slice(&reference::contiguous::<T>(&view)?, view.shape())?;
    let full: Vec<usize> = case.shape.iter().map(|s| s + 2 * case.margin).collect();
    let values: Vec<T> = (0..full.iter().product()).map(value).collect();
    // In the storage from its first element on, and one element later.
    for skip in [0, 1] {
        let found = guarded(device, || {
            let mut shifted = vec![value(7); skip];
            shifted.extend_from_slice(&values);
            let whole = Tensor::from_slice(&shifted, &[shifted.len()])?.to_device(device)?;
            let whole = whole.narrow(0, skip, values.len())?.reshape(&full)?;
            contiguous(&same_view(case, &whole)?)?.to_device(Device::Cpu)
        })?;
        equal("contiguous", &found, &expected).map_err(|e| e.with("skipped", skip))?;
    }
    Ok(())
}

fn check_views(device: Device, case: &Case) -> Result<()> {
    check_view(device, case, |i| i as i32)?;
    check_view(device, case, |i| bf16::from_f32((i % 256) as f32))?;
    check_view(device, case, |i| (i * 7 % 251) as u8)
}

/// Further views: sides around a tile of pairs and of 32, short sides, runs of 16 bytes and less.
fn device_cases() -> Vec<Case> {
    let further: [(&[usize], &[usize], usize); 12] = [
        (&[64, 64], &[1, 0], 0),
        (&[64, 66], &[1, 0], 1),
        (&[130, 62], &[1, 0], 0),
        (&[2, 65, 3, 128], &[0, 3, 2, 1], 0),
        (&[2, 128, 2, 70], &[0, 3, 2, 1], 0),
        (&[5, 3], &[1, 0], 0),
        (&[2, 3, 700], &[0, 2, 1], 0),
        (&[2, 700, 3], &[0, 2, 1], 0),
        (&[2, 5, 3, 16], &[0, 2, 1, 3], 0),
        (&[2, 5, 3, 6], &[0, 2, 1, 3], 0),
        (&[2, 5, 3, 8], &[0, 2, 1, 3], 2),
        (&[1, 31, 1, 9], &[3, 2, 1, 0], 3),
    ];
    let further = further.iter().map(|(shape, order, margin)| Case {
        shape: shape.to_vec(),
        order: order.to_vec(),
        margin: *margin,
    });
    let small = |case: &Case| case.shape.iter().product::<usize>() <= 20_000;
    cases().into_iter().filter(small).chain(further).collect()
}

fn check_expanded(device: Device) -> Result<usize> {
    let x = Tensor::from_slice(&[1i32, 2, 3], &[1, 3, 1])?;
    let shapes = [[4, 3, 1], [1, 3, 5], [40, 3, 70], [2, 3, 1]];
    for shape in shapes {
        for order in [[0, 1, 2], [1, 2, 0]] {
            let view = |x: &Tensor| x.expand(&shape)?.permute(&order);
            let expected = contiguous(&view(&x)?)?;
            let found =
                guarded(device, || contiguous(&view(&x.to_device(device)?)?)?.to_device(Device::Cpu))?;
            equal("contiguous of an expanded view", &found, &expected)?;
        }
    }
    Ok(2 * shapes.len())
}

fn check_cat(device: Device) -> Result<usize> {
    let shapes = [
        ([2, 3, 4], [2, 1, 4], [2, 0, 4], 1),
        ([2, 3, 4], [5, 3, 4], [1, 3, 4], 0),
        ([2, 3, 4], [2, 3, 1], [2, 3, 7], 2),
        ([2, 3, 16], [2, 3, 32], [2, 3, 48], 2),
        ([30, 2, 31], [30, 1, 31], [30, 3, 31], 1),
        ([0, 3, 4], [0, 3, 4], [0, 3, 4], 0),
        ([2, 0, 4], [2, 0, 4], [2, 0, 4], 1),
    ];
    for (i, &(a, b, c, dim)) in shapes.iter().enumerate() {
        let parts = [a, b, c].map(|shape| Array::<f64>::integers(&shape, i as u64 + shape[dim] as u64, 100));
        let host = parts.iter().map(|p| cast(&p.to_tensor()?, DType::I32)).collect::<Result<Vec<_>>>()?;
        for dtype in [DType::F32, DType::BF16, DType::I32, DType::U8] {
            let host = host.iter().map(|p| cast(p, dtype)).collect::<Result<Vec<_>>>()?;
            let expected = cat(&host.iter().collect::<Vec<_>>(), dim)?;
            let found = guarded(device, || {
                let parts = host.iter().map(|p| p.to_device(device)).collect::<Result<Vec<_>>>()?;
                cat(&parts.iter().collect::<Vec<_>>(), dim)?.to_device(Device::Cpu)
            })?;
            equal("cat", &found, &expected).map_err(|e| e.with("case", (a, b, c, dim)))?;
        }
    }
    Ok(shapes.len())
}

/// Rows gathered in every type, and added up again in f32 and bf16. n, width, m: the last cases cut m in pieces.
fn check_rows(device: Device) -> Result<usize> {
    let sizes = [
        (1, 1, 1),
        (5, 3, 17),
        (64, 129, 100),
        (17, 128, 65),
        (7, 0, 3),
        (3, 4, 0),
        (40, 264, 31),
        (3, 5, 1000),
        (7, 24, 600),
    ];
    for (n, width, m) in sizes {
        let rows: Vec<i32> = (0..m).map(|i| (i * i + 3 * i) % n).collect();
        let index = Tensor::from_slice(&rows, &[m as usize])?;
        let x = Array::<f64>::integers(&[n as usize, width], 4, 100);
        for dtype in [DType::F32, DType::BF16, DType::I32, DType::U8] {
            let host = cast(&cast(&x.to_tensor()?, DType::I32)?, dtype)?;
            let expected = gather_rows(&host, &index)?;
            let found = guarded(device, || {
                gather_rows(&host.to_device(device)?, &index.to_device(device)?)?.to_device(Device::Cpu)
            })?;
            equal("gather_rows", &found, &expected).map_err(|e| e.with("sizes", (n, width, m)))?;
        }
        let dy = Array::<f64>::random(&[m as usize, width], 5, 1.0);
        check_launcher(
            device,
            "scatter_add_rows",
            &[&dy],
            2.0,
            |x| Ok(vec![scatter_add_rows(&x[0], &index.to_device(device)?, n as usize)?]),
            |x| vec![added(&x[0], &rows, n as usize)],
            |x| vec![added(&x[0], &rows, n as usize)],
        )
        .map_err(|e| e.with("sizes", (n, width, m)))?;
    }
    Ok(sizes.len())
}

fn added<T: crate::array::Real>(dy: &Array<T>, index: &[i32], n: usize) -> Array<T> {
    let width = dy.shape[1];
    let mut out = Array::zeros(&[n, width]);
    for (m, &i) in index.iter().enumerate() {
        for c in 0..width {
            out.data[i as usize * width + c] += dy.data[m * width + c];
        }
    }
    out
}

/// Every pair of types on values where rounding and limits show, as the CPU does it; aligned and not.
fn check_casts(device: Device) -> Result<usize> {
    let mut values = vec![0.0, -0.0, 1.9, -1.9, 255.0, 256.0, -1.0, 3e9, -3e9, f64::NAN, f64::INFINITY];
    values.extend([f64::NEG_INFINITY, 1e-40, 1.0 + 1.0 / 256.0, 1.0 + 3.0 / 256.0, 1.003_906_4, 254.5, 2e9]);
    values.extend(Array::<f64>::random(&[5000], 1, 300.0).data);
    let floats = Array::new(&[values.len()], values);
    let mut integers = vec![0i32, 1, -1, 255, 256, 300, 16_777_217, i32::MAX, i32::MIN, i32::MIN + 1];
    integers.extend([0x4040_0001, -0x4040_0001, 0x40c0_0000, 0x40bf_ffff, 0x4040_0000]);
    integers.extend((0..5000).map(|i: i32| i.wrapping_mul(i).wrapping_mul(0x0123_4567)));
    let bytes: Vec<u8> = (0..4099).map(|i| (i * 7 % 256) as u8).collect();
    let sources = [
        floats.to_tensor_of(DType::F32)?,
        floats.to_tensor_of(DType::BF16)?,
        Tensor::from_slice(&integers, &[integers.len()])?,
        Tensor::from_slice(&bytes, &[bytes.len()])?,
    ];
    for x in &sources {
        for dtype in [DType::F32, DType::BF16, DType::I32, DType::U8] {
            for skip in [0, 1] {
                let part = x.narrow(0, skip, x.len() - skip)?;
                let found = guarded(device, || {
                    cast(&x.to_device(device)?.narrow(0, skip, part.len())?, dtype)?.to_device(Device::Cpu)
                })?;
                equal("cast", &found, &cast(&part, dtype)?).map_err(|e| e.with("from", x.dtype()))?;
            }
        }
    }
    Ok(4 * sources.len())
}

/// Among 700 rows some that receive hundreds, as a mask token does, and one just not enough to be told apart. width.
fn check_hot_rows(device: Device) -> Result<usize> {
    let (n, m) = (700, 2300);
    for width in [3, 24, 264] {
        let row = |i: i32| match i % 23 {
            0..8 => 13,
            8..14 => 699,
            // 512 in all: one fewer than is hot.
            14..20 if i < 1958 => 200,
            _ => i * i % n,
        };
        let rows: Vec<i32> = (0..m).map(row).collect();
        let count = |r: i32| rows.iter().filter(|&&i| i == r).count();
        debug_assert!(count(13) > 512 && count(699) > 512 && (500..=513).contains(&count(200)));
        let index = Tensor::from_slice(&rows, &[m as usize])?;
        let dy = Array::<f64>::random(&[m as usize, width], 5, 1.0);
        check_launcher(
            device,
            "scatter_add_rows",
            &[&dy],
            2.0,
            |x| Ok(vec![scatter_add_rows(&x[0], &index.to_device(device)?, n as usize)?]),
            |x| vec![added(&x[0], &rows, n as usize)],
            |x| vec![added(&x[0], &rows, n as usize)],
        )
        .map_err(|e| e.with("width", width))?;
    }
    Ok(3)
}

/// Rows put at different indices in every type, some outside, which are left out. n, width, m.
fn check_put(device: Device) -> Result<usize> {
    let sizes = [
        (1, 1, 1),
        (17, 3, 5),
        (100, 129, 33),
        (9, 128, 9),
        (7, 0, 3),
        (3, 4, 0),
        (40, 264, 31),
        (600, 5, 550),
    ];
    for (n, width, m) in sizes {
        let rows: Vec<i32> = (0..m).map(|i| (i * 7 + 3) % n).collect();
        let x = Array::<f64>::integers(&[n as usize, width], 4, 100);
        let from = Array::<f64>::integers(&[m as usize, width], 5, 100);
        let mut wrong = rows.clone();
        wrong
            .iter_mut()
            .step_by(4)
            .zip([n, -1, i32::MAX, i32::MIN].into_iter().cycle())
            .for_each(|(i, bad)| *i = bad);
        for dtype in [DType::F32, DType::BF16, DType::I32, DType::U8] {
            let of = |x: &Array<f64>| cast(&cast(&x.to_tensor()?, DType::I32)?, dtype);
            let (x, from) = (of(&x)?, of(&from)?);
            for (index, inside) in [(&rows, false), (&wrong, true)] {
                let mut expected = x.clone();
                let kept: Vec<i32> = (0..m).filter(|&i| (0..n).contains(&index[i as usize])).collect();
                let at: Vec<i32> = kept.iter().map(|&i| index[i as usize]).collect();
                let kept = gather_rows(&from, &Tensor::from_slice(&kept, &[kept.len()])?)?;
                put_rows(&mut expected, &Tensor::from_slice(&at, &[at.len()])?, &kept)?;
                let found = guarded(device, || {
                    let mut x = x.to_device(device)?;
                    let index = Tensor::from_slice(index, &[index.len()])?.to_device(device)?;
                    put_rows(&mut x, &index, &from.to_device(device)?)?;
                    x.to_device(Device::Cpu)
                })?;
                equal("put_rows", &found, &expected)
                    .map_err(|e| e.with("sizes", (n, width, m)).with("some outside", inside))?;
            }
        }
    }
    Ok(sizes.len())
}

/// Windows in every type, aligned or not.
fn check_windows(device: Device) -> Result<usize> {
    for (shape, size, count) in windows::CASES {
        let at = Tensor::from_slice(&windows::places(shape, size, count), &[count, 3])?;
        let len: usize = shape.iter().product();
        let x = cast(&Array::<f64>::integers(&[len + 1], 4, 100).to_tensor()?, DType::I32)?;
        for dtype in [DType::F32, DType::BF16, DType::I32, DType::U8] {
            let x = cast(&x, dtype)?;
            for skip in [0, 1] {
                let expected = windows(&x.narrow(0, skip, len)?.reshape(&shape)?, &at, size)?;
                let found = guarded(device, || {
                    let x = x.to_device(device)?.narrow(0, skip, len)?.reshape(&shape)?;
                    windows(&x, &at.to_device(device)?, size)?.to_device(Device::Cpu)
                })?;
                equal("windows", &found, &expected).map_err(|e| e.with("case", (shape, size, count)))?;
            }
        }
    }
    Ok(windows::CASES.len())
}

/// Rows whose address is not a multiple of 16 bytes.
fn check_misaligned_rows(device: Device) -> Result<usize> {
    let x = Array::<f64>::integers(&[9, 16], 1, 100);
    let index = Tensor::from_slice(&[8, 0, 3, 3], &[4])?;
    for dtype in crate::check::FLOATS {
        for put in [on_device as fn(&_, _, _) -> _, misaligned] {
            let expected = gather_rows(&x.to_tensor_of(dtype)?, &index)?;
            let found = guarded(device, || {
                gather_rows(&put(&x, dtype, device)?, &index.to_device(device)?)?.to_device(Device::Cpu)
            })?;
            equal("gather_rows", &found, &expected)?;
            let mut expected = x.to_tensor_of(dtype)?;
            let (places, rows) =
                (Tensor::from_slice(&[5, 1], &[2])?, x.to_tensor_of(dtype)?.narrow(0, 3, 2)?);
            put_rows(&mut expected, &places, &rows)?;
            let found = guarded(device, || {
                let mut all = put(&x, dtype, device)?;
                put_rows(&mut all, &places.to_device(device)?, &rows.to_device(device)?)?;
                all.to_device(Device::Cpu)
            })?;
            equal("put_rows", &found, &expected)?;
        }
    }
    Ok(1)
}

/// Runs every case on a CUDA device and gives their number. The error names the case.
pub fn check(device: Device) -> Result<usize> {
    let views = each(&device_cases(), |case| check_views(device, case))?;
    let others = [
        check_expanded,
        check_cat,
        check_rows,
        check_hot_rows,
        check_put,
        check_misaligned_rows,
        check_windows,
        check_casts,
    ];
    let counts = others.iter().map(|check| check(device)).collect::<Result<Vec<_>>>()?;
    Ok(views + counts.iter().sum::<usize>())
}
