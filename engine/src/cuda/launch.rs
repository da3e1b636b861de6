//! The one place where kernels are launched: it collects the arguments, names the launch, and knows its bytes and
//! FLOPs.

use super::context::{Context, explain};
use super::kernel::{Function, Kernel};
use super::profile;
use super::tensor_map::TensorMap;
use crate::{Device, Error, ErrorKind, Result, Tensor};
use cudarc::driver::result;
use std::ffi::c_void;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Bytes of all arguments of a launch: what every driver takes.
const ARGUMENT_BYTES: usize = 4096;
/// Arguments of a launch at most.
const ARGUMENTS: usize = 64;

static LAUNCHES: AtomicUsize = AtomicUsize::new(0);

/// Kernels launched so far by this process.
pub fn count() -> usize {
    LAUNCHES.load(Ordering::Relaxed)
}

/// A launch that is being put together. Arguments are given in the kernel's order.
///
/// ```ignore
/// Launch::new(&ADD, device)?.read(a)?.read(b)?.write(&mut out)?.value(n as u64).grid(blocks).block(256).run()
/// ```
///
/// Memory of the tensors may be dropped as soon as [`Launch::run`] returns: it is handed out again in stream order.
pub struct Launch {
    kernel: &'static Kernel,
    function: &'static Function,
    context: &'static Context,
    device: Device,
    arguments: Arguments,
    grid: [u32; 3],
    block: [u32; 3],
    shared: usize,
    /// Bytes of the tensors that are read and written.
    bytes: u64,
    flops: f64,
    /// What was wrong with an argument; [`Launch::run`] reports it.
    wrong: Option<Error>,
}

/// The arguments' bytes, each aligned to 16.
#[repr(align(16))]
struct Arguments {
    bytes: [u8; ARGUMENT_BYTES],
    /// Where each starts, and its size.
    places: [(usize, usize); ARGUMENTS],
    count: usize,
    used: usize,
}

impl Launch {
    /// A launch of `kernel` on `device`, loading it first if needed. One block of one thread until said otherwise.
    ///
    /// # Errors
    ///
    /// The device is the CPU, cannot be used, or cannot run the kernel; the kernel cannot be compiled.
    #[track_caller]
    pub fn new(kernel: &'static Kernel, device: Device) -> Result<Launch> {
        let Device::Cuda(ordinal) = device else {
            return Err(Error::new(ErrorKind::Device, kernel.entry, "a kernel runs on a CUDA device"));
        };
        let (function, context) = kernel.on(ordinal)?;
        let arguments =
            Arguments { bytes: [0; ARGUMENT_BYTES], places: [(0, 0); ARGUMENTS], count: 0, used: 0 };
        Ok(Launch {
            kernel,
            function,
            context,
            device,
            arguments,
            grid: [1; 3],
            block: [1; 3],
            shared: 0,
            bytes: 0,
            flops: 0.0,
            wrong: None,
        })
    }

    /// The address of a contiguous tensor that is read.
    #[track_caller]
    pub fn read(mut self, tensor: &Tensor) -> Result<Launch> {
        let address = tensor.device_address(self.kernel.entry)?;
        self.on_this_device(tensor)?;
        self.bytes += (tensor.len() * tensor.dtype().size()) as u64;
        Ok(self.value(address))
    }

    /// A map of a contiguous tensor that is read: a `__grid_constant__` argument.
    #[track_caller]
    pub fn read_map(mut self, tensor: &Tensor, map: TensorMap) -> Result<Launch> {
        self.on_this_device(tensor)?;
        self.bytes += (tensor.len() * tensor.dtype().size()) as u64;
        Ok(self.value(map))
    }

    /// The address of a contiguous tensor that is read, or a null pointer for none.
    #[track_caller]
    pub fn read_optional(self, tensor: Option<&Tensor>) -> Result<Launch> {
        match tensor {
            Some(tensor) => self.read(tensor),
            None => Ok(self.value(0u64)),
        }
    }

    /// The address of the first element of the storage that a strided view refers to; its offset and strides are the
    /// caller's to pass.
    #[track_caller]
    pub fn read_storage(mut self, tensor: &Tensor) -> Result<Launch> {
        let address = tensor.device_storage_address(self.kernel.entry)?;
        self.on_this_device(tensor)?;
        self.bytes += (tensor.len() * tensor.dtype().size()) as u64;
        Ok(self.value(address))
    }

    /// The address of a contiguous tensor that is written. If others share its storage, they keep the old values
    /// (see [`Tensor`]).
    #[track_caller]
    pub fn write(mut self, tensor: &mut Tensor) -> Result<Launch> {
        let address = tensor.device_address_mut(self.kernel.entry)?;
        self.on_this_device(tensor)?;
        self.bytes += (tensor.len() * tensor.dtype().size()) as u64;
        Ok(self.value(address))
    }

    /// The address of a contiguous tensor that is written, or a null pointer for none.
    #[track_caller]
    pub fn write_optional(self, tensor: Option<&mut Tensor>) -> Result<Launch> {
        match tensor {
            Some(tensor) => self.write(tensor),
            None => Ok(self.value(0u64)),
        }
    }

    #[track_caller]
    fn on_this_device(&self, tensor: &Tensor) -> Result<()> {
        match tensor.device() == self.device {
            true => Ok(()),
            false => Err(Error::new(
                ErrorKind::Device,
                self.kernel.entry,
                format!("the kernel runs on {}: copy the tensor there first", self.device),
            )
            .argument("tensor", tensor)),
        }
    }

    /// A number or a `#[repr(C)]` struct, which must be of the kernel's type to the byte: its size is checked against
    /// the kernel's where the driver tells it.
    pub fn value<T: bytemuck::NoUninit>(mut self, value: T) -> Launch {
        let bytes = bytemuck::bytes_of(&value);
        let start = self.arguments.used.next_multiple_of(16);
        let end = start + bytes.len();
        if end > ARGUMENT_BYTES || self.arguments.count == ARGUMENTS {
            let text = format!("more than {ARGUMENTS} arguments or {ARGUMENT_BYTES} bytes of them");
            self.wrong = Some(Error::value(self.kernel.entry, text));
            return self;
        }
        self.arguments.bytes[start..end].copy_from_slice(bytes);
        self.arguments.places[self.arguments.count] = (start, bytes.len());
        self.arguments.count += 1;
        self.arguments.used = end;
        self
    }

    /// Blocks in x. Nothing is launched if there are none.
    pub fn grid(self, blocks: usize) -> Launch {
        self.grid3([blocks, 1, 1])
    }

    /// Blocks in x, y, z. Nothing is launched if there are none.
    pub fn grid3(mut self, blocks: [usize; 3]) -> Launch {
        const LIMITS: [usize; 3] = [i32::MAX as usize, 65_535, 65_535];
        if (0..3).any(|i| blocks[i] > LIMITS[i]) {
            let text = format!("a grid has at most {LIMITS:?} blocks: the tensors are too large");
            self.wrong = Some(Error::value(self.kernel.entry, text).with("blocks", blocks));
        }
        self.grid = blocks.map(|n| n as u32);
        self
    }

    /// Threads in a block, in x.
    pub fn block(self, threads: usize) -> Launch {
        self.block3([threads, 1, 1])
    }

    /// Threads in a block, in x, y, z.
    pub fn block3(mut self, threads: [usize; 3]) -> Launch {
        self.block = threads.map(|n| n as u32);
        self
    }

    /// Bytes of dynamic shared memory of a block.
    pub fn shared(mut self, bytes: usize) -> Launch {
        if bytes > self.kernel.dynamic_shared {
            let text = format!("declares at most {} bytes of shared memory", self.kernel.dynamic_shared);
            self.wrong = Some(Error::value(self.kernel.entry, text).with("asked", bytes));
        }
        self.shared = bytes;
        self
    }

    /// Bytes that must move, where that is not the size of all tensors read and written.
    pub fn bytes(mut self, bytes: usize) -> Launch {
        self.bytes = bytes as u64;
        self
    }

    /// Floating-point operations.
    pub fn flops(mut self, flops: f64) -> Launch {
        self.flops = flops;
        self
    }

    /// Puts the launch on the compute stream. Faults in the kernel show when something waits for the device.
    #[track_caller]
    pub fn run(mut self) -> Result<()> {
        if let Some(wrong) = self.wrong.take() {
            return Err(wrong);
        }
        if self.grid.contains(&0) {
            return Ok(());
        }
        self.check_arguments()?;
        let _bound = self.context.bind()?;
        let base: *mut u8 = self.arguments.bytes.as_mut_ptr();
        let mut pointers = [std::ptr::null_mut::<c_void>(); ARGUMENTS];
        for (pointer, place) in pointers.iter_mut().zip(&self.arguments.places[..self.arguments.count]) {
            // SAFETY: every place lies inside the buffer.
            *pointer = unsafe { base.add(place.0) }.cast();
        }
        LAUNCHES.fetch_add(1, Ordering::Relaxed);
        let observed = profile::begin(self.context, || {
            profile::launched(self.kernel.entry, self.grid, self.block, self.shared, self.bytes, self.flops)
        });
        // SAFETY: the function is loaded; each pointer is to an argument of the size that the kernel declares (checked
        // above where the driver tells sizes); memory that the kernel touches is freed in stream order only.
        let launched = unsafe {
            result::launch_kernel(
                self.function.handle,
                (self.grid[0], self.grid[1], self.grid[2]),
                (self.block[0], self.block[1], self.block[2]),
                self.shared as u32,
                self.context.compute_stream(),
                &mut pointers[..self.arguments.count],
            )
        };
        if let Some(observed) = observed {
            observed.end(launched.is_ok());
        }
        launched.map_err(|e| {
            explain(self.kernel.entry, e)
                .with("grid", self.grid)
                .with("block", self.block)
                .with("shared", self.shared)
        })
    }

    #[track_caller]
    fn check_arguments(&self) -> Result<()> {
        let Some(declared) = &self.function.parameters else { return Ok(()) };
        let given = &self.arguments.places[..self.arguments.count];
        let same = given.len() == declared.len() && given.iter().zip(declared).all(|(g, d)| g.1 == *d);
        match same {
            true => Ok(()),
            false => Err(Error::value(
                self.kernel.entry,
                format!(
                    "the kernel declares parameters of {declared:?} bytes, the launch gives {:?}",
                    given.iter().map(|g| g.1).collect::<Vec<_>>()
                ),
            )),
        }
    }
}
