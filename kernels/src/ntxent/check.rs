//! Launchers against the references. On CUDA devices in f32 and bf16, aligned and not.

use super::cases::{Case, Data, Values, cases, positive};
use super::reference::Gradients;
use super::*;
use crate::array::{Array, Real};
use crate::check::{FLOATS, each, guarded, misaligned, on_device};

/// The results' names, in the order of [`run`].
const NAMES: [&str; 5] = ["loss", "lse", "drows", "dcolumns", "dpositive"];

/// Loss, lse, drows, dcolumns, and dpositive of positives that are vectors, on the device that `put` puts arrays on.
pub(super) fn run(
    case: &Case,
    data: &Data,
    put: impl Fn(&Array<f64>) -> Result<Tensor>,
) -> Result<Vec<Tensor>> {
    let (rows, columns) = (put(&data.rows)?, put(&data.columns)?);
    let of = match &data.positive {
        reference::Positive::Vector(v) => (put(v)?, false),
        reference::Positive::Column(_) => (data.positive_tensor()?.0.to_device(rows.device())?, true),
    };
    let (loss, lse) = forward(&rows, &columns, positive(&of), case.spec)?;
    let dloss = data.dloss.to_tensor()?.to_device(rows.device())?;
    let g = backward(&dloss, &rows, &columns, positive(&of), case.spec, &lse, true)?;
    let mut out = vec![loss, lse, g.drows];
    out.extend(g.dcolumns);
    out.extend(g.dpositive);
    Ok(out)
}

fn cast<T: Real>(of: &reference::Positive<f64>) -> reference::Positive<T> {
    match of {
        reference::Positive::Column(index) => reference::Positive::Column(index.clone()),
        reference::Positive::Vector(v) => reference::Positive::Vector(v.cast()),
    }
}

/// The reference in one precision, in the order of [`run`].
pub(super) fn expected<T: Real>(case: &Case, data: &Data) -> Vec<Array<T>> {
    let (rows, columns, dloss) = (data.rows.cast::<T>(), data.columns.cast(), data.dloss.cast());
    let of = cast(&data.positive);
    let (loss, lse) = reference::forward(&rows, &columns, &of, case.spec);
    let Gradients { drows, dcolumns, dpositive } =
        reference::backward(&dloss, &rows, &columns, &of, case.spec);
    vec![loss, lse, drows, dcolumns, dpositive]
}

/// The largest sum of magnitudes behind an element of each gradient: what its rounding is relative to. With `apart` the
/// softmax and the 1 that the positive's weight is less count each for itself.
fn magnitudes(data: &Data, case: &Case, apart: bool) -> [f64; 3] {
    let Data { rows, columns, positive: of, dloss } = data;
    let ones = |i: usize| if apart { (dloss.data[i] / f64::from(case.spec.temperature)).abs() } else { 0.0 };
    let is_positive = |i: usize, j: Option<usize>| match of {
        reference::Positive::Column(index) => j == Some(index[i]),
        reference::Positive::Vector(_) => j.is_none(),
    };
    let all = reference::weights(dloss, rows, columns, of, case.spec).into_iter();
    let all: Vec<_> =
        all.map(|(i, j, g)| (i, j, g.abs() + if is_positive(i, j) { ones(i) } else { 0.0 })).collect();
    let of = match of {
        reference::Positive::Vector(v) => reference::Positive::Vector(v.map(f64::abs)),
        other => other.clone(),
    };
    let g = reference::products(&all, &rows.map(f64::abs), &columns.map(f64::abs), &of);
    [g.drows, g.dcolumns, g.dpositive].map(|x| largest(&x.data))
}

fn largest(x: &[f64]) -> f64 {
    x.iter().fold(0.0, |m: f64, &x| m.max(x.abs()))
}

/// Half a unit in the last place of bf16, in units of f32.
const HALF_A_UNIT: f64 = (1 << 15) as f64;

/// What the references say of a case's data, and how far from it results may be.
pub(super) struct Expected {
    oracle: Vec<Array<f64>>,
    allowed: Vec<f64>,
}

impl Expected {
    /// Within twice the naive error, or within what rounding must cost: with few rows the naive sums are now and
    /// then exact by luck. Loss and lse are differences and sums of similarities, each an inner product with a few
    /// units of rounding; the gradients carry half a unit of the lse, kept in f32, in every weight, and a few units
    /// of the sums of magnitudes.
    ///
    /// Tensor cores take weights that are rounded to bf16: half a unit of each, relative to the sums of magnitudes. And
    /// their kernels do not have lse of a row with one large similarity as that similarity to the bit, so that its
    /// weight, 1, is off by the rounding of both.
    pub fn new(case: &Case, data: &Data, tensor_cores: bool) -> Expected {
        let (naive, oracle) = (expected::<f32>(case, data), expected::<f64>(case, data));
        let lse = oracle[1].data.iter().fold(1.0, |m: f64, x| m.max(x.abs()));
        let mut rounding = magnitudes(data, case, false).map(|m| (4.0 + lse / 2.0) * m);
        if tensor_cores {
            let (together, apart) = (magnitudes(data, case, false), magnitudes(data, case, true));
            rounding = std::array::from_fn(|i| HALF_A_UNIT * together[i] + (4.0 + 2.0 * lse) * apart[i]);
        }
        let rounding = [&[4.0 * lse; 2], &rounding[..]].concat();
        let allowed = (0..NAMES.len()).map(|i| {
            2.0 * distance(&naive[i].cast::<f64>().data, &oracle[i].data)
                + rounding[i] * f64::from(f32::EPSILON)
        });
        Expected { allowed: allowed.collect(), oracle }
    }

    /// An error if a result of [`run`] has another shape, is not finite or is too far off. A result in bf16 may be
    /// one unit of its largest element further off: its last rounding.
    pub fn require(&self, results: &[Tensor]) -> Result<()> {
        for (i, (result, oracle)) in results.iter().zip(&self.oracle).enumerate() {
            result.require_shape("ntxent", NAMES[i], &oracle.shape)?;
            let unit = match result.dtype() {
                DType::BF16 => f64::from(half::bf16::EPSILON) * largest(&oracle.data),
                _ => 0.0,
            };
            let found = distance(&Array::<f64>::from_tensor(result)?.data, &oracle.data);
            let allowed = self.allowed[i] + unit;
            // Not so for NaN either.
            if found <= allowed {
                continue;
            }
            let text = format!("{} is off by {found:.3e}, allowed {allowed:.3e}", NAMES[i]);
            return Err(Error::value("ntxent", text));
        }
        Ok(())
    }
}

/// The largest difference; NaN where there is one.
fn distance(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, |m: f64, d| if d > m || d.is_nan() { d } else { m })
}

pub(super) fn rounded(data: &Data, dtype: DType) -> Data {
    let positive = match &data.positive {
        reference::Positive::Vector(v) => reference::Positive::Vector(v.rounded_to(dtype)),
        other => other.clone(),
    };
    let (rows, columns) = (data.rows.rounded_to(dtype), data.columns.rounded_to(dtype));
    Data { rows, columns, positive, dloss: data.dloss.clone() }
}

fn check_case(device: Device, case: &Case) -> Result<()> {
    for dtype in FLOATS {
        let data = rounded(&case.data(), dtype);
        // Vectors that are no multiple of 16 bytes go element by element wherever they lie.
        let whole = (case.d * dtype.size()).is_multiple_of(16);
        for (place, put) in [("aligned", on_device as fn(&_, _, _) -> _), ("misaligned", misaligned)] {
            if place == "misaligned" && !whole {
                continue;
            }
            let tensor_cores = dtype == DType::BF16 && whole && place == "aligned" && case.d <= 256;
            let expected = Expected::new(case, &data, tensor_cores);
            let results = guarded(device, || {
                let results = run(case, &data, |x| put(x, dtype, device))?;
                for (i, result) in results.iter().enumerate() {
                    result.require_dtype("ntxent", NAMES[i], if i < 2 { DType::F32 } else { dtype })?;
                }
                results.iter().map(|y| y.to_device(Device::Cpu)).collect::<Result<Vec<_>>>()
            })?;
            expected.require(&results).map_err(|e| e.with("place", place).with("dtype", dtype))?;
        }
    }
    Ok(())
}

/// The CPU's cases but for large ones, and the tiles of the CUDA kernels: 64 and 128 vectors and 128 elements with their
/// neighbours, columns in several parts, every mask with every kind of positive.
fn device_cases() -> Vec<Case> {
    let small = |case: &Case| match case.r == case.c {
        true => case.r <= 130 && case.d <= 128,
        // Of both kinds of positive with three masks, two.
        false => case.r * case.c < 512 && [None, Some(3)][usize::from(!case.vector)] == case.spec.self_column,
    };
    let mut all: Vec<Case> = cases().into_iter().filter(small).collect();
    all.extend([
        Case::simclr(3, 129, 0.1, Values::Unit),
        Case::simclr(3, 260, 0.01, Values::Unit),
        Case::simclr(2, 390, 0.07, Values::Unit),
        Case::simclr(8, 16, 0.01, Values::Normal(1.0)),
    ]);
    let mut add = |r, c, d, vector, self_column| {
        let spec = Spec { temperature: 0.2, self_column };
        all.push(Case { r, c, d, vector, spec, values: Values::Unit });
    };
    for vector in [false, true] {
        for self_column in [None, Some(0), Some(3)] {
            add(5, 9, 6, vector, self_column);
        }
        add(65, 129, 8, vector, Some(1));
    }
    add(63, 127, 8, true, Some(1));
    add(64, 128, 8, false, Some(1));
    add(17, 383, 13, false, Some(3));
    add(130, 5, 13, true, None);
    add(2, 640, 8, false, None);
    all.sort_by_key(|case| case.r * case.c);
    all
}

/// Runs every case on a CUDA device and gives their number. The error names the case.
pub fn check(device: Device) -> Result<usize> {
    each(&device_cases(), |case| {
        check_case(device, case)?;
        // The emulated device copies all memory for every schedule: no case should carry the others' along.
        engine::cuda::memory::trim()
    })
}
