//! Where checks run: the CPU in f32, and a CUDA device in f32 and in bf16.
//!
//! The device is hardware where there is some, else emulated (see `kernels::testing`); its checks run one after
//! another, because they share its stream, which one of them captures.

use engine::cuda::extension;
use engine::{DType, Device, Tensor};
use kernels::array::Array;
use kernels::testing;
use std::cell::Cell;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A device and the type in which floats are computed there.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Setting {
    pub device: Device,
    pub float: DType,
}

/// f32 on the CPU.
pub const CPU: Setting = Setting { device: Device::Cpu, float: DType::F32 };

thread_local! {
    static SETTING: Cell<Setting> = const { Cell::new(CPU) };
}

/// The calling thread's setting.
pub fn setting() -> Setting {
    SETTING.get()
}

/// A setting that holds for this thread until it is dropped.
pub struct Scope {
    _alone: Option<MutexGuard<'static, ()>>,
}

impl Drop for Scope {
    fn drop(&mut self) {
        SETTING.set(CPU);
    }
}

/// Computes in `float` on the device that tests have, until the scope is dropped. On the emulated device every launch runs
/// under all its schedules if `every_schedule` is set, else in plain order.
pub fn on_device(float: DType, every_schedule: bool) -> Scope {
    static DEVICE: Mutex<()> = Mutex::new(());
    let alone = DEVICE.lock().unwrap_or_else(PoisonError::into_inner);
    SETTING.set(Setting { device: testing::device(), float });
    extension::set_option("SCHEDULES", if every_schedule { "all" } else { "one" });
    Scope { _alone: Some(alone) }
}

/// Computes in f32 on the CPU.
pub fn on_cpu() -> Scope {
    SETTING.set(CPU);
    Scope { _alone: None }
}

/// The values as a tensor of an element type on the setting's device.
pub fn put(x: &Array<f64>, dtype: DType) -> Result<Tensor, String> {
    x.to_tensor_of(dtype).and_then(|x| x.to_device(setting().device)).map_err(super::harness::text)
}

/// What one rounding of the setting's type can do to a value, relatively, with room for a second one.
pub fn unit() -> f64 {
    match setting().float {
        DType::BF16 => f64::from(half::bf16::EPSILON),
        _ => 4.0 * f64::from(f32::EPSILON),
    }
}
