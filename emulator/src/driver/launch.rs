//! Launches: what is checked before a kernel is queued, and where its parameters come from.

use super::abi::{HostFunction, LaunchConfig, StreamCallback};
use super::error::{
    CUDA_ERROR_COOPERATIVE_LAUNCH_TOO_LARGE, CUDA_ERROR_INVALID_VALUE, CUDA_ERROR_NOT_SUPPORTED, Cuda,
};
use super::session::{Session, in_context};
use super::state::{HostCall, Work};
use super::work::{KernelLaunch, Task};
use super::{CUresult, Handle, device, occupancy};
use crate::exec::Kernel;
use std::ffi::c_void;
use std::sync::Arc;

/// `CU_LAUNCH_PARAM_END`, `CU_LAUNCH_PARAM_BUFFER_POINTER`, `CU_LAUNCH_PARAM_BUFFER_SIZE`.
const EXTRA: (usize, usize, usize) = (0, 1, 2);

/// How a kernel is to be launched.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    pub grid: [u32; 3],
    pub block: [u32; 3],
    pub shared: u32,
    pub cooperative: bool,
}

/// The bytes of a kernel's parameters, from either form of the launch call.
///
/// # Safety
/// `parameters` is null or points to as many pointers as the kernel has parameters, each to as many bytes as its
/// parameter; `extra` is null or a list as `cuLaunchKernel` describes it.
unsafe fn gather(kernel: &Kernel, parameters: *mut *mut c_void, extra: *mut *mut c_void) -> Cuda<Box<[u8]>> {
    let mut bytes = vec![0u8; kernel.parameter_bytes()].into_boxed_slice();
    match (parameters.is_null(), extra.is_null()) {
        (false, false) => return Err(CUDA_ERROR_INVALID_VALUE),
        (true, true) if kernel.parameters().is_empty() => {}
        (true, true) => return Err(CUDA_ERROR_INVALID_VALUE),
        (false, true) => {
            for (i, &(offset, size)) in kernel.parameters().iter().enumerate() {
                // SAFETY: the caller's contract: there is a pointer for each parameter.
                let from = unsafe { parameters.add(i).read() };
                let to = bytes.get_mut(offset..offset + size).ok_or(CUDA_ERROR_INVALID_VALUE)?;
                if from.is_null() {
                    return Err(CUDA_ERROR_INVALID_VALUE);
                }
                // SAFETY: the caller's contract: `size` bytes; `to` has as many.
                unsafe { from.cast::<u8>().copy_to(to.as_mut_ptr(), size) };
            }
        }
        (true, false) => {
            // SAFETY: the caller's contract.
            let (buffer, size) = unsafe { read_extra(extra) }?;
            if size < bytes.len() || (buffer.is_null() && !bytes.is_empty()) {
                return Err(CUDA_ERROR_INVALID_VALUE);
            }
            if !bytes.is_empty() {
                // SAFETY: the caller's contract: `size` bytes, at least as many as are copied.
                unsafe { buffer.copy_to(bytes.as_mut_ptr(), bytes.len()) };
            }
        }
    }
    Ok(bytes)
}

/// Buffer and size in an `extra` list.
///
/// # Safety
/// The list is as `cuLaunchKernel` describes it: pairs of a tag and a pointer, then the end's tag.
unsafe fn read_extra(extra: *mut *mut c_void) -> Cuda<(*const u8, usize)> {
    let (mut buffer, mut size) = (std::ptr::null(), 0);
    for i in (0..4).step_by(2) {
        // SAFETY: the caller's contract: each pair is read only if no end came before it.
        let (tag, value) = unsafe {
            let tag = extra.add(i).read() as usize;
            (tag, if tag == EXTRA.0 { std::ptr::null_mut() } else { extra.add(i + 1).read() })
        };
        match tag {
            tag if tag == EXTRA.0 => break,
            tag if tag == EXTRA.1 => buffer = value.cast_const().cast::<u8>(),
            tag if tag == EXTRA.2 && !value.is_null() => {
                // SAFETY: the caller's contract: the value points to the size.
                size = unsafe { value.cast::<usize>().read() };
            }
            _ => return Err(CUDA_ERROR_INVALID_VALUE),
        }
    }
    Ok((buffer, size))
}

impl Session {
    /// Checks a launch and gathers its parameters.
    ///
    /// # Safety
    /// As for `gather`.
    pub(super) unsafe fn prepare(
        &self,
        function: Handle,
        shape: Shape,
        parameters: *mut *mut c_void,
        extra: *mut *mut c_void,
    ) -> Cuda<KernelLaunch> {
        let found = self.functions.get(function)?;
        check(&found.kernel, shape, found.max_dynamic_shared)?;
        if shape.cooperative {
            let model = self.model();
            let threads = shape.block.iter().product();
            let blocks = occupancy::blocks(&model, occupancy::Need::of(&found.kernel, threads, shape.shared));
            let resident = u64::from(blocks) * u64::from(model.multiprocessors);
            if shape.grid.iter().map(|&n| u64::from(n)).product::<u64>() > resident {
                return Err(CUDA_ERROR_COOPERATIVE_LAUNCH_TOO_LARGE);
            }
        }
        // SAFETY: the caller's contract.
        let parameters = unsafe { gather(&found.kernel, parameters, extra) }?;
        Ok(KernelLaunch {
            function,
            _image: found.image.clone(),
            kernel: found.kernel.clone(),
            grid: shape.grid,
            block: shape.block,
            shared: shape.shared,
            parameters,
        })
    }
}

/// Refuses what no device of these architectures launches.
fn check(kernel: &Kernel, shape: Shape, max_dynamic: u32) -> Cuda<()> {
    let [x, y, z] = shape.block;
    let threads = u64::from(x) * u64::from(y) * u64::from(z);
    let fits = shape.grid.iter().all(|&n| n > 0)
        && shape.grid[0] <= i32::MAX as u32
        && shape.grid[1] <= 65535
        && shape.grid[2] <= 65535
        && threads > 0
        && x <= 1024
        && y <= 1024
        && z <= 64
        && threads <= u64::from(kernel.max_threads().min(device::MAX_THREADS))
        && kernel.required_threads().is_none_or(|required| required == shape.block)
        && shape.shared <= max_dynamic;
    if fits { Ok(()) } else { Err(CUDA_ERROR_INVALID_VALUE) }
}

/// # Safety
/// As for `gather`.
unsafe fn launch(
    mut session: Session,
    context: Handle,
    function: Handle,
    shape: Shape,
    stream: Handle,
    parameters: *mut *mut c_void,
    extra: *mut *mut c_void,
) -> Cuda<()> {
    let stream = session.stream(context, stream)?;
    // SAFETY: the caller's contract.
    let launch = unsafe { session.prepare(function, shape, parameters, extra) }?;
    session.submit(stream, Task::Launch(Arc::new(launch)), false)
}

/// Queues a kernel.
#[cfg_attr(driver_library, unsafe(no_mangle))]
pub unsafe extern "C" fn cuLaunchKernel(
    function: Handle,
    grid_x: u32,
    grid_y: u32,
    grid_z: u32,
    block_x: u32,
    block_y: u32,
    block_z: u32,
    shared: u32,
    stream: Handle,
    parameters: *mut *mut c_void,
    extra: *mut *mut c_void,
) -> CUresult {
    let (grid, block) = ([grid_x, grid_y, grid_z], [block_x, block_y, block_z]);
    let shape = Shape { grid, block, shared, cooperative: false };
    // SAFETY: the function's contract.
    in_context(|session, context| unsafe {
        launch(session, context, function, shape, stream, parameters, extra)
    })
}

/// Queues a kernel whose blocks may wait for one another.
#[cfg_attr(driver_library, unsafe(no_mangle))]
pub unsafe extern "C" fn cuLaunchCooperativeKernel(
    function: Handle,
    grid_x: u32,
    grid_y: u32,
    grid_z: u32,
    block_x: u32,
    block_y: u32,
    block_z: u32,
    shared: u32,
    stream: Handle,
    parameters: *mut *mut c_void,
) -> CUresult {
    let (grid, block) = ([grid_x, grid_y, grid_z], [block_x, block_y, block_z]);
    let shape = Shape { grid, block, shared, cooperative: true };
    in_context(|session, context| {
        // SAFETY: the function's contract.
        unsafe { launch(session, context, function, shape, stream, parameters, std::ptr::null_mut()) }
    })
}

/// Queues a kernel with attributes: cooperative, and clusters of one block; others are not supported.
#[cfg_attr(driver_library, unsafe(no_mangle))]
pub unsafe extern "C" fn cuLaunchKernelEx(
    config: Option<&LaunchConfig>,
    function: Handle,
    parameters: *mut *mut c_void,
    extra: *mut *mut c_void,
) -> CUresult {
    in_context(|session, context| {
        let config = config.ok_or(CUDA_ERROR_INVALID_VALUE)?;
        if config.attributes.is_null() && config.attribute_count > 0 {
            return Err(CUDA_ERROR_INVALID_VALUE);
        }
        let mut shape =
            Shape { grid: config.grid, block: config.block, shared: config.shared, cooperative: false };
        for i in 0..config.attribute_count as usize {
            // SAFETY: the function's contract: there are as many attributes.
            let attribute = unsafe { config.attributes.add(i).read() };
            let half = |i: usize| (attribute.value[i / 2] >> (32 * (i % 2))) as u32;
            match attribute.id {
                0 => {}
                2 => shape.cooperative = half(0) != 0,
                4 if (half(0), half(1), half(2)) == (1, 1, 1) => {}
                _ => return Err(CUDA_ERROR_NOT_SUPPORTED),
            }
        }
        // SAFETY: the function's contract.
        unsafe { launch(session, context, function, shape, config.stream, parameters, extra) }
    })
}

/// Queues a function of the program's, which may not call the driver.
#[cfg_attr(driver_library, unsafe(no_mangle))]
pub unsafe extern "C" fn cuLaunchHostFunc(
    stream: Handle,
    function: Option<HostFunction>,
    data: *mut c_void,
) -> CUresult {
    in_context(|mut session, context| {
        let function = function.ok_or(CUDA_ERROR_INVALID_VALUE)?;
        let stream = session.stream(context, stream)?;
        session.submit(stream, Task::Host(HostCall { function, data: data as usize }), false)
    })
}

/// Queues a function of the program's that is told of errors, and may not call the driver.
#[cfg_attr(driver_library, unsafe(no_mangle))]
pub unsafe extern "C" fn cuStreamAddCallback(
    stream: Handle,
    function: Option<StreamCallback>,
    data: *mut c_void,
    flags: u32,
) -> CUresult {
    in_context(|mut session, context| {
        let function = function.ok_or(CUDA_ERROR_INVALID_VALUE)?;
        if flags != 0 {
            return Err(CUDA_ERROR_INVALID_VALUE);
        }
        let stream = session.stream(context, stream)?;
        session.submit_uncapturable(stream, Work::Callback { function, data: data as usize }).map(|_| ())
    })
}
