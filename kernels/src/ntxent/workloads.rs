//! What is profiled and timed: SimCLR's loss of 256 pairs, MoCo's of 64 rows against a queue.

use super::cases::{Case, Values, positive};
use super::*;
use crate::check::on_device;
use crate::registry::{Run, Workload};

fn simclr() -> Case {
    Case::simclr(256, 128, 0.1, Values::Unit)
}

fn moco() -> Case {
    let spec = Spec { temperature: 0.07, self_column: None };
    Case { r: 64, c: 2048, d: 128, vector: true, spec, values: Values::Unit }
}

/// One direction of a case; the columns are constants where the positives are vectors.
fn direction(device: Device, dtype: DType, case: Case, back: bool) -> Result<Run> {
    let data = case.data();
    let rows = on_device(&data.rows, dtype, device)?;
    let columns = if case.vector { on_device(&data.columns, dtype, device)? } else { rows.clone() };
    let of = match &data.positive {
        reference::Positive::Vector(v) => (on_device(v, dtype, device)?, false),
        reference::Positive::Column(_) => (data.positive_tensor()?.0.to_device(device)?, true),
    };
    let dloss = on_device(&data.dloss, DType::F32, device)?;
    if !back {
        return Ok(Box::new(move || forward(&rows, &columns, positive(&of), case.spec).map(drop)));
    }
    let (_, lse) = forward(&rows, &columns, positive(&of), case.spec)?;
    Ok(Box::new(move || {
        backward(&dloss, &rows, &columns, positive(&of), case.spec, &lse, !case.vector).map(drop)
    }))
}

/// The family's workloads.
pub fn workloads() -> Vec<Workload> {
    vec![
        Workload { label: "forward 512x512x128", prepare: |d, t| direction(d, t, simclr(), false) },
        Workload { label: "backward 512x512x128", prepare: |d, t| direction(d, t, simclr(), true) },
        Workload { label: "forward vector 64x2048x128", prepare: |d, t| direction(d, t, moco(), false) },
        Workload { label: "backward vector 64x2048x128", prepare: |d, t| direction(d, t, moco(), true) },
    ]
}
