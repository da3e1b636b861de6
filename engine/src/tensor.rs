//! Tensors: strided, typed views of reference-counted storage.

use crate::cuda;
use crate::storage::{Content, Memory, Storage};
use crate::{DType, Device, Element, Error, ErrorKind, Layout, Result};
use std::borrow::Cow;
use std::sync::Arc;

/// Why a device's elements are not a slice.
const ON_DEVICE: &str = "the elements lie on a CUDA device: copy them to the CPU first (to_device, to_vec)";

/// A multi-dimensional array. Cloning and viewing share the storage; nothing is copied.
///
/// Writing ([`Tensor::as_mut_slice`]) needs `&mut`. If other tensors share the storage they keep the old
/// values and their [`Tensor::is_stale`] becomes true, so that a value saved before the write is not
/// mistaken for the current one.
#[derive(Clone)]
pub struct Tensor {
    storage: Arc<Storage>,
    layout: Layout,
    dtype: DType,
    version: u64,
}

impl Tensor {
    /// A tensor whose elements are arbitrary until written.
    #[track_caller]
    pub fn empty(shape: &[usize], dtype: DType, device: Device) -> Result<Tensor> {
        let layout = Layout::contiguous(shape)?;
        let storage = Storage::new(device, layout.len() * dtype.size())?;
        Ok(Tensor { storage: Arc::new(storage), layout, dtype, version: 0 })
    }

    /// A tensor of zeros.
    #[track_caller]
    pub fn zeros(shape: &[usize], dtype: DType, device: Device) -> Result<Tensor> {
        let mut tensor = Tensor::empty(shape, dtype, device)?;
        match tensor.memory_mut("zeros")? {
            Memory::Cpu(block) => block.bytes_mut().fill(0),
            Memory::Cuda(block) => cuda::transfer::fill(block, 0)?,
            Memory::Constant(_) => {}
        }
        Ok(tensor)
    }

    /// An f32 tensor of one repeated value.
    #[track_caller]
    pub fn full(shape: &[usize], value: f32, device: Device) -> Result<Tensor> {
        let mut tensor = Tensor::empty(shape, DType::F32, device)?;
        match tensor.memory_mut("full")? {
            Memory::Cpu(block) => bytemuck::cast_slice_mut::<u8, f32>(block.bytes_mut()).fill(value),
            Memory::Cuda(block) => cuda::transfer::fill_words(block, value.to_bits())?,
            Memory::Constant(_) => {}
        }
        Ok(tensor)
    }

    /// A CPU tensor with a copy of `values`, in row-major order.
    #[track_caller]
    pub fn from_slice<T: Element>(values: &[T], shape: &[usize]) -> Result<Tensor> {
        let mut tensor = Tensor::empty(shape, T::DTYPE, Device::Cpu)?;
        if tensor.len() != values.len() {
            return Err(Error::shape("from_slice", format!("{} values do not fill the shape", values.len()))
                .with("shape", shape));
        }
        tensor.as_mut_slice::<T>()?.copy_from_slice(values);
        Ok(tensor)
    }

    /// Values on a device that never change, such as indices that every step uses. On a CUDA device the same values are
    /// uploaded once and shared by all who ask for them, also while a graph is captured.
    #[track_caller]
    pub fn constant<T: Element>(values: &[T], shape: &[usize], device: Device) -> Result<Tensor> {
        let layout = Layout::contiguous(shape)?;
        if layout.len() != values.len() {
            return Err(Error::shape("constant", format!("{} values do not fill the shape", values.len()))
                .with("shape", shape));
        }
        let storage = Storage::constant(device, bytemuck::cast_slice(values))?;
        Ok(Tensor { storage: Arc::new(storage), layout, dtype: T::DTYPE, version: 0 })
    }

    /// A CPU scalar (rank 0).
    #[track_caller]
    pub fn scalar(value: f32) -> Result<Tensor> {
        Tensor::from_slice(&[value], &[])
    }

    /// Size of each dimension.
    pub fn shape(&self) -> &[usize] {
        self.layout.dims()
    }

    /// Number of dimensions.
    pub fn rank(&self) -> usize {
        self.layout.rank()
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.layout.len()
    }

    /// Whether there is no element.
    pub fn is_empty(&self) -> bool {
        self.layout.is_empty()
    }

    /// Element type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Where the bytes lie.
    pub fn device(&self) -> Device {
        self.storage.device()
    }

    /// Sizes, strides, offset.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Whether elements lie one after another in row-major order.
    pub fn is_contiguous(&self) -> bool {
        self.layout.is_contiguous()
    }

    /// Whether the values were written in place, through another tensor, since this one was made.
    pub fn is_stale(&self) -> bool {
        self.version != self.storage.version()
    }

    /// Whether both are views of the same storage.
    pub fn shares_storage(&self, other: &Tensor) -> bool {
        Arc::ptr_eq(&self.storage, &other.storage)
    }

    /// A number that is the storage's own as long as it lives: it stays through writes in place and changes where a
    /// write had to copy, or the tensor was replaced.
    pub fn storage_id(&self) -> usize {
        Arc::as_ptr(&self.storage) as usize
    }

    /// Whether no other tensor shares the storage: writing then keeps it where it is.
    pub(crate) fn owns_storage(&self) -> bool {
        Arc::strong_count(&self.storage) == 1
    }

    fn view(&self, layout: Layout) -> Tensor {
        Tensor { layout, ..self.clone() }
    }

    /// The same elements under another shape. An error if strides need a copy (`kernels::copy::contiguous`).
    #[track_caller]
    pub fn reshape(&self, shape: &[usize]) -> Result<Tensor> {
        match self.layout.reshape(shape)? {
            Some(layout) => Ok(self.view(layout)),
            None => Err(Error::shape("reshape", "these strides need a contiguous copy first")
                .argument("x", self)
                .with("to", shape)),
        }
    }

    /// Dimensions in the given order.
    #[track_caller]
    pub fn permute(&self, order: &[usize]) -> Result<Tensor> {
        Ok(self.view(self.layout.permute(order)?))
    }

    /// Two dimensions exchanged.
    #[track_caller]
    pub fn transpose(&self, a: usize, b: usize) -> Result<Tensor> {
        let mut order: Vec<usize> = (0..self.rank()).collect();
        if a >= order.len() || b >= order.len() {
            return Err(Error::shape("transpose", format!("no dimensions {a} and {b}")).argument("x", self));
        }
        order.swap(a, b);
        self.permute(&order)
    }

    /// Elements `start .. start + len` of dimension `dim`.
    #[track_caller]
    pub fn narrow(&self, dim: usize, start: usize, len: usize) -> Result<Tensor> {
        Ok(self.view(self.layout.narrow(dim, start, len)?))
    }

    /// Dimensions of size 1 repeated, without copying.
    #[track_caller]
    pub fn expand(&self, shape: &[usize]) -> Result<Tensor> {
        Ok(self.view(self.layout.expand(shape)?))
    }

    /// The elements of a contiguous CPU tensor, in row-major order.
    ///
    /// Errors if the type differs, or the tensor is strided or not on the CPU.
    #[track_caller]
    pub fn as_slice<T: Element>(&self) -> Result<&[T]> {
        self.require_slice::<T>("as_slice")?;
        if self.is_empty() {
            return Ok(&[]);
        }
        let start = self.layout.offset();
        Ok(&bytemuck::cast_slice(self.host_bytes("as_slice")?)[start..start + self.len()])
    }

    /// The elements of a contiguous CPU tensor, writable. See [`Tensor`] for what happens to views.
    #[track_caller]
    pub fn as_mut_slice<T: Element>(&mut self) -> Result<&mut [T]> {
        self.require_slice::<T>("as_mut_slice")?;
        if self.is_empty() {
            return Ok(&mut []);
        }
        let (start, len) = (self.layout.offset(), self.len());
        match self.memory_mut("as_mut_slice")? {
            Memory::Cpu(block) => Ok(&mut bytemuck::cast_slice_mut(block.bytes_mut())[start..start + len]),
            Memory::Cuda(_) | Memory::Constant(_) => {
                Err(Error::new(ErrorKind::Device, "as_mut_slice", ON_DEVICE))
            }
        }
    }

    /// The same values on the same device in a storage of their own. This tensor is not touched.
    pub fn duplicate(&self) -> Result<Tensor> {
        let storage = Arc::new(self.storage.duplicate()?);
        Ok(Tensor { version: storage.version(), storage, ..self.clone() })
    }

    /// Makes the storage this tensor's own, by a copy on the same device if others share it, and counts as a write.
    #[track_caller]
    pub fn make_unique(&mut self) -> Result<&mut Tensor> {
        self.memory_mut("make_unique")?;
        Ok(self)
    }

    /// Whether the first element lies at a multiple of `bytes`.
    pub fn is_aligned(&self, bytes: usize) -> bool {
        let start = self.layout.offset() * self.dtype.size();
        let base = match self.storage.content() {
            Content::Cpu(block) => block.bytes().as_ptr() as usize,
            Content::Cuda(block) => block.address() as usize,
        };
        (base + start).is_multiple_of(bytes)
    }

    /// The storage for writing: our own copy of it if it is shared.
    #[track_caller]
    fn memory_mut(&mut self, operation: &str) -> Result<&mut Memory> {
        self.storage.bump_version();
        if Arc::get_mut(&mut self.storage).is_none() || !self.storage.is_writable() {
            self.storage = Arc::new(self.storage.duplicate()?);
        }
        self.version = self.storage.version();
        match Arc::get_mut(&mut self.storage) {
            Some(storage) => Ok(storage.memory_mut()),
            None => Err(Error::new(ErrorKind::Memory, operation, "the storage is shared")),
        }
    }

    /// The storage's bytes, which must be on the CPU.
    #[track_caller]
    fn host_bytes(&self, operation: &str) -> Result<&[u8]> {
        match self.storage.content() {
            Content::Cpu(block) => Ok(block.bytes()),
            Content::Cuda(_) => Err(Error::new(ErrorKind::Device, operation, ON_DEVICE).argument("x", self)),
        }
    }

    /// The same values on another device; the tensor itself if it is there. The copy is contiguous, and waits for both
    /// devices.
    #[track_caller]
    pub fn to_device(&self, device: Device) -> Result<Tensor> {
        match device == self.device() {
            true => Ok(self.clone()),
            false => self.copy_to(device),
        }
    }

    /// A contiguous copy of the values on a device, by way of the host.
    #[track_caller]
    pub(crate) fn copy_to(&self, device: Device) -> Result<Tensor> {
        let bytes = self.bytes()?;
        let mut moved = Tensor::empty(self.shape(), self.dtype, device)?;
        match moved.memory_mut("to_device")? {
            Memory::Cpu(block) => block.bytes_mut().copy_from_slice(&bytes),
            Memory::Cuda(block) => cuda::transfer::upload(&bytes, block)?,
            Memory::Constant(_) => {}
        }
        Ok(moved)
    }

    /// The bytes of all elements in row-major order, whatever the strides and the device.
    #[track_caller]
    fn bytes(&self) -> Result<Cow<'_, [u8]>> {
        let size = self.dtype.size();
        if self.is_empty() {
            return Ok(Cow::Borrowed(&[]));
        }
        let start = self.layout.offset() * size;
        if self.is_contiguous() {
            let length = self.len() * size;
            return match self.storage.content() {
                Content::Cpu(block) => Ok(Cow::Borrowed(&block.bytes()[start..start + length])),
                Content::Cuda(block) => {
                    let mut bytes = vec![0; length];
                    cuda::transfer::read_back(block, start, &mut bytes)?;
                    Ok(Cow::Owned(bytes))
                }
            };
        }
        let all: Cow<'_, [u8]> = match self.storage.content() {
            Content::Cpu(block) => Cow::Borrowed(block.bytes()),
            Content::Cuda(block) => {
                let mut bytes = vec![0; block.len()];
                cuda::transfer::read_back(block, 0, &mut bytes)?;
                Cow::Owned(bytes)
            }
        };
        let mut out = Vec::with_capacity(self.len() * size);
        self.layout.for_each_index(|i| out.extend_from_slice(&all[i * size..(i + 1) * size]));
        Ok(Cow::Owned(out))
    }

    /// Where the elements of a contiguous tensor start on its CUDA device, for kernels that find their tensors in a
    /// table.
    #[track_caller]
    pub fn device_address(&self, operation: &str) -> Result<u64> {
        if !self.is_contiguous() {
            return Err(Error::shape(operation, "needs a contiguous tensor: copy it first")
                .argument("x", self)
                .with("strides", self.layout.strides()));
        }
        let offset = if self.is_empty() { 0 } else { self.layout.offset() * self.dtype.size() };
        Ok(self.device_storage_address(operation)? + offset as u64)
    }

    /// Where the storage starts on its CUDA device.
    #[track_caller]
    pub(crate) fn device_storage_address(&self, operation: &str) -> Result<u64> {
        match self.storage.content() {
            Content::Cuda(block) => Ok(block.address()),
            Content::Cpu(_) => {
                let text = "a CUDA kernel needs tensors on its device: copy them there first";
                Err(Error::new(ErrorKind::Device, operation, text).argument("x", self))
            }
        }
    }

    /// As [`Tensor::device_address`], for writing: if others share the storage this tensor moves to a copy.
    #[track_caller]
    pub fn device_address_mut(&mut self, operation: &str) -> Result<u64> {
        self.device_address(operation)?;
        self.memory_mut(operation)?;
        self.device_address(operation)
    }

    #[track_caller]
    fn require_slice<T: Element>(&self, operation: &str) -> Result<()> {
        if self.dtype != T::DTYPE {
            return Err(
                Error::dtype(operation, format!("the elements are not {}", T::DTYPE)).argument("x", self)
            );
        }
        if !self.is_contiguous() {
            return Err(Error::shape(operation, "needs a contiguous tensor: copy it first")
                .argument("x", self)
                .with("strides", self.layout.strides()));
        }
        Ok(())
    }

    /// A copy of the elements in row-major order, whatever the strides and the device. For a tensor on a CUDA device
    /// it waits for the device.
    #[track_caller]
    pub fn to_vec<T: Element>(&self) -> Result<Vec<T>> {
        if self.dtype != T::DTYPE {
            return Err(
                Error::dtype("to_vec", format!("the elements are not {}", T::DTYPE)).argument("x", self)
            );
        }
        let mut out = vec![T::zeroed(); self.len()];
        bytemuck::cast_slice_mut::<T, u8>(&mut out).copy_from_slice(&self.bytes()?);
        Ok(out)
    }

    /// All the storage's elements, for kernels that follow strides themselves. CPU only.
    #[track_caller]
    pub fn storage_slice<T: Element>(&self) -> Result<&[T]> {
        if self.dtype != T::DTYPE {
            return Err(Error::dtype("storage_slice", format!("the elements are not {}", T::DTYPE))
                .argument("x", self));
        }
        Ok(bytemuck::cast_slice(self.host_bytes("storage_slice")?))
    }

    /// The only element of an f32 tensor.
    #[track_caller]
    pub fn item(&self) -> Result<f32> {
        match self.to_vec::<f32>()?.as_slice() {
            [value] => Ok(*value),
            _ => Err(Error::shape("item", "needs exactly one element").argument("x", self)),
        }
    }

    /// An error unless the element type is `dtype`; `name` is the argument's name in the message.
    #[track_caller]
    pub fn require_dtype(&self, operation: &str, name: &str, dtype: DType) -> Result<()> {
        match self.dtype == dtype {
            true => Ok(()),
            false => Err(Error::dtype(operation, format!("{name} must be {dtype}")).argument(name, self)),
        }
    }

    /// An error unless the shape is `shape`; `name` is the argument's name in the message.
    #[track_caller]
    pub fn require_shape(&self, operation: &str, name: &str, shape: &[usize]) -> Result<()> {
        match self.shape() == shape {
            true => Ok(()),
            false => {
                Err(Error::shape(operation, format!("{name} must have shape {shape:?}")).argument(name, self))
            }
        }
    }
}

impl std::fmt::Debug for Tensor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Tensor {:?} {} on {}", self.shape(), self.dtype, self.device())
    }
}

#[cfg(test)]
mod tests;
