//! What is profiled and timed: many short rows as a classifier has them, few long ones as a self-distillation head has.

use super::cases::{Case, Values};
use super::*;
use crate::check::on_device;
use crate::registry::{Run, Workload};

const SHORT: (usize, usize) = (256, 2048);
const LONG: (usize, usize) = (4, 65_536);

/// One direction of the cross-entropy of M rows of V classes.
fn cross_entropy(
    device: Device,
    dtype: DType,
    (m, v): (usize, usize),
    soft: bool,
    back: bool,
) -> Result<Run> {
    let case = Case { m, v, soft, smoothing: 0.0, values: Values::Normal(2.0) };
    let x = on_device(&case.logits(), dtype, device)?;
    let t = match soft {
        true => on_device(&case.probabilities(), dtype, device)?,
        false => Tensor::from_slice(&case.labels(), &[m])?.to_device(device)?,
    };
    let dloss = on_device(&case.dloss(), DType::F32, device)?;
    if !back {
        return Ok(Box::new(move || forward(&x, case.target(&t), 0.0).map(drop)));
    }
    let (_, lse) = forward(&x, case.target(&t), 0.0)?;
    Ok(Box::new(move || backward(&dloss, &x, case.target(&t), 0.0, &lse).map(drop)))
}

/// The family's workloads.
pub fn workloads() -> Vec<Workload> {
    vec![
        Workload { label: "forward 256x2048", prepare: |d, t| cross_entropy(d, t, SHORT, false, false) },
        Workload { label: "backward 256x2048", prepare: |d, t| cross_entropy(d, t, SHORT, false, true) },
        Workload { label: "forward soft 4x65536", prepare: |d, t| cross_entropy(d, t, LONG, true, false) },
        Workload { label: "backward soft 4x65536", prepare: |d, t| cross_entropy(d, t, LONG, true, true) },
        Workload {
            label: "softmax 256x2048",
            prepare: |device, dtype| {
                let case =
                    Case { m: SHORT.0, v: SHORT.1, soft: false, smoothing: 0.0, values: Values::Normal(2.0) };
                let x = on_device(&case.logits(), dtype, device)?;
                Ok(Box::new(move || softmax(&x).map(drop)))
            },
        },
    ]
}
