//! Fills: rows of elements of one, two or four bytes. The calls without a stream use the legacy stream, and the host
//! does not wait for them.

use super::error::{CUDA_ERROR_INVALID_VALUE, Cuda};
use super::session::{Session, in_context};
use super::work::{FillTask, Task};
use super::{CUresult, Handle};
use std::sync::Arc;

/// Checks a fill: the address is one of the device's, aligned, and the rows stay inside their allocation.
pub(super) fn checked(session: &Session, fill: FillTask) -> Cuda<FillTask> {
    let element = fill.element as u64;
    let row = fill.width.checked_mul(element).ok_or(CUDA_ERROR_INVALID_VALUE)?;
    let rows = fill.height.saturating_sub(1).checked_mul(fill.pitch).ok_or(CUDA_ERROR_INVALID_VALUE)?;
    let extent = rows.checked_add(row).ok_or(CUDA_ERROR_INVALID_VALUE)?;
    let found = session.device()?.find(fill.address).ok_or(CUDA_ERROR_INVALID_VALUE)?;
    let inside = extent <= found.size - (fill.address - found.address);
    let aligned =
        fill.address.is_multiple_of(element) && (fill.height <= 1 || fill.pitch.is_multiple_of(element));
    let apart = fill.height <= 1 || fill.pitch >= row;
    if inside && aligned && apart { Ok(fill) } else { Err(CUDA_ERROR_INVALID_VALUE) }
}

fn fill(task: FillTask, stream: Handle) -> CUresult {
    in_context(|mut session, context| {
        let stream = session.stream(context, stream)?;
        if task.width == 0 || task.height == 0 {
            return Ok(());
        }
        let task = checked(&session, task)?;
        session.submit(stream, Task::Fill(Arc::new(task)), false)
    })
}

macro_rules! fills {
    ($($element:literal $value:ty: $now:ident $queued:ident $rows_now:ident $rows_queued:ident;)*) => {$(
        #[doc = concat!("Fills elements of ", $element, " bytes on the legacy stream.")]
        #[cfg_attr(driver_library, unsafe(no_mangle))]
        pub unsafe extern "C" fn $now(address: u64, value: $value, count: usize) -> CUresult {
            // SAFETY: the same contract.
            unsafe { $queued(address, value, count, 0) }
        }

        #[doc = concat!("Fills elements of ", $element, " bytes when the stream gets there.")]
        #[cfg_attr(driver_library, unsafe(no_mangle))]
        pub unsafe extern "C" fn $queued(address: u64, value: $value, count: usize, stream: Handle) -> CUresult {
            let name = stringify!($queued);
            let (width, value) = (count as u64, u32::from(value));
            fill(FillTask { name, address, pitch: 0, value, element: $element, width, height: 1 }, stream)
        }

        #[doc = concat!("Fills rows of elements of ", $element, " bytes on the legacy stream.")]
        #[cfg_attr(driver_library, unsafe(no_mangle))]
        pub unsafe extern "C" fn $rows_now(
            address: u64, pitch: usize, value: $value, width: usize, height: usize,
        ) -> CUresult {
            // SAFETY: the same contract.
            unsafe { $rows_queued(address, pitch, value, width, height, 0) }
        }

        #[doc = concat!("Fills rows of elements of ", $element, " bytes when the stream gets there.")]
        #[cfg_attr(driver_library, unsafe(no_mangle))]
        pub unsafe extern "C" fn $rows_queued(
            address: u64, pitch: usize, value: $value, width: usize, height: usize, stream: Handle,
        ) -> CUresult {
            let name = stringify!($rows_queued);
            let (pitch, width, height) = (pitch as u64, width as u64, height as u64);
            fill(FillTask { name, address, pitch, value: u32::from(value), element: $element, width, height }, stream)
        }
    )*};
}

fills! {
    1 u8: cuMemsetD8_v2 cuMemsetD8Async cuMemsetD2D8_v2 cuMemsetD2D8Async;
    2 u16: cuMemsetD16_v2 cuMemsetD16Async cuMemsetD2D16_v2 cuMemsetD2D16Async;
    4 u32: cuMemsetD32_v2 cuMemsetD32Async cuMemsetD2D32_v2 cuMemsetD2D32Async;
}
