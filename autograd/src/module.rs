//! The visitor that shows a network's parameters and buffers: one walk serves state dicts, strict loading,
//! optimisers, EMA, freezing and counting.

use crate::param::Role;
use crate::{Buffer, Param};
use engine::safetensors::Contents;
use engine::{Device, Error, Result, Tensor};
use std::collections::BTreeSet;

/// Receives parameters and buffers with their full names.
pub trait Visitor<'a> {
    /// A parameter.
    fn param(&mut self, name: String, param: &'a mut Param);
    /// A buffer.
    fn buffer(&mut self, name: String, buffer: &'a mut Buffer);
}

/// The prefix of names inside a module: `layer1.0.`.
#[derive(Debug, Clone, Default)]
pub struct Path(String);

impl Path {
    /// The root: names have no prefix.
    pub fn root() -> Path {
        Path::default()
    }

    /// The prefix inside a child.
    pub fn child(&self, name: impl std::fmt::Display) -> Path {
        Path(format!("{}{name}.", self.0))
    }

    /// The full name of something directly here.
    pub fn name(&self, name: &str) -> String {
        format!("{}{name}", self.0)
    }
}

/// Anything with parameters.
pub trait Module {
    /// Shows every parameter and buffer, in a fixed order, each once.
    fn visit<'a>(&'a mut self, path: &Path, visitor: &mut dyn Visitor<'a>);
}

/// All parameters and buffers of a module, by name, in visiting order.
#[derive(Default)]
pub struct Parts<'a> {
    /// Parameters.
    pub params: Vec<(String, &'a mut Param)>,
    /// Buffers.
    pub buffers: Vec<(String, &'a mut Buffer)>,
}

impl<'a> Visitor<'a> for Parts<'a> {
    fn param(&mut self, name: String, param: &'a mut Param) {
        self.params.push((name, param));
    }
    fn buffer(&mut self, name: String, buffer: &'a mut Buffer) {
        self.buffers.push((name, buffer));
    }
}

/// All parameters and buffers of `module`.
pub fn parts<'a, M: Module + ?Sized>(module: &'a mut M) -> Parts<'a> {
    let mut parts = Parts::default();
    module.visit(&Path::root(), &mut parts);
    parts
}

/// Number of trainable values.
pub fn count<M: Module + ?Sized>(module: &mut M) -> usize {
    parts(module).params.iter().filter(|(_, p)| p.is_trainable()).map(|(_, p)| p.value().len()).sum()
}

/// Freezes or frees every parameter of a module.
pub fn set_trainable<M: Module + ?Sized>(module: &mut M, trainable: bool) {
    parts(module).params.into_iter().for_each(|(_, p)| p.set_trainable(trainable));
}

/// Moves every parameter and buffer to a device, before the first step there.
pub fn to_device<M: Module + ?Sized>(module: &mut M, device: Device) -> Result<()> {
    let parts = parts(module);
    for (_, param) in parts.params {
        let moved = param.value().to_device(device)?;
        param.set(moved)?;
    }
    for (_, buffer) in parts.buffers {
        let moved = buffer.value().to_device(device)?;
        buffer.set(moved)?;
    }
    Ok(())
}

/// Lets weights and biases (not those of normalisations) have a copy in bf16, for computations in that type.
pub fn keep_low<M: Module + ?Sized>(module: &mut M) -> Result<()> {
    let params = parts(module).params.into_iter();
    params.filter(|(_, p)| p.role() != Role::Norm).try_for_each(|(_, p)| p.keep_low())
}

/// The device that a module computes on: its first parameter's. The CPU for a module without any.
pub fn device<M: Module + ?Sized>(module: &mut M) -> Device {
    parts(module).params.first().map_or(Device::Cpu, |(_, param)| param.value().device())
}

/// Gives `to` the values of `from`, on their device and in memory of its own, and freezes and keeps copies in bf16 as there.
///
/// An error, and nothing changed, unless both have the same names in the same order with the same shapes.
#[track_caller]
pub fn copy<A: Module + ?Sized, B: Module + ?Sized>(from: &mut A, to: &mut B) -> Result<()> {
    let (from, mut to) = (parts(from), parts(to));
    let describe = |parts: &Parts<'_>| -> Vec<(String, Vec<usize>)> {
        let params = parts.params.iter().map(|(name, p)| (name.clone(), p.value().shape().to_vec()));
        params
            .chain(parts.buffers.iter().map(|(name, b)| (name.clone(), b.value().shape().to_vec())))
            .collect()
    };
    let (all, wanted) = (describe(&from), describe(&to));
    if let Some(i) = (0..all.len().max(wanted.len())).find(|&i| all.get(i) != wanted.get(i)) {
        return Err(Error::shape("copy state", "the two networks differ")
            .with("from", all.get(i))
            .with("to", wanted.get(i)));
    }
    for ((_, from), (_, to)) in from.params.iter().zip(&mut to.params) {
        to.set(from.value().duplicate()?)?;
        to.set_trainable(from.is_trainable());
        if from.is_low_kept() {
            to.keep_low()?;
        }
    }
    for ((_, from), (_, to)) in from.buffers.iter().zip(&mut to.buffers) {
        to.set(from.value().duplicate()?)?;
    }
    Ok(())
}

/// Forgets all gradients.
pub fn clear_gradients<M: Module + ?Sized>(module: &mut M) {
    parts(module).params.into_iter().for_each(|(_, p)| p.clear_gradient());
}

/// Adds all parameters and buffers to `contents`, names prefixed by `prefix`, in the layout of files.
pub fn save<M: Module + ?Sized>(module: &mut M, prefix: &str, contents: &mut Contents) -> Result<()> {
    let parts = parts(module);
    for (name, param) in &parts.params {
        contents.insert(format!("{prefix}{name}"), &param.stored().outside(param.value())?)?;
    }
    for (name, buffer) in &parts.buffers {
        contents.insert(format!("{prefix}{name}"), buffer.value())?;
    }
    Ok(())
}

/// Loads every parameter and buffer from the tensors of `contents` whose names start with `prefix`, to the device
/// where each lies.
///
/// Strict: one error lists all missing, unexpected and mis-shaped names, and then nothing is changed.
/// Names in `ignore` (after the prefix) may be there without being used.
#[track_caller]
pub fn load<M: Module + ?Sized>(
    module: &mut M,
    prefix: &str,
    contents: &Contents,
    ignore: &[&str],
) -> Result<()> {
    let mut parts = parts(module);
    let mut unused: BTreeSet<&str> = contents.tensors.keys().filter_map(|k| k.strip_prefix(prefix)).collect();
    let mut problems: Vec<String> = Vec::new();
    let mut take = |name: &str, shape: &[usize], dtype: engine::DType| -> Option<Tensor> {
        unused.remove(name);
        match contents.tensors.get(&format!("{prefix}{name}")) {
            None => problems.push(format!("missing: {name} {shape:?}")),
            Some(t) if t.shape() != shape || t.dtype() != dtype => problems.push(format!(
                "mis-shaped: {name} is {:?} {}, must be {shape:?} {dtype}",
                t.shape(),
                t.dtype()
            )),
            Some(t) => return Some(t.clone()),
        }
        None
    };
    let mut values = Vec::new();
    for (name, param) in &parts.params {
        let shape = param.stored().outside(param.value())?.shape().to_vec();
        values.push(take(name, &shape, param.value().dtype()));
    }
    let mut statistics = Vec::new();
    for (name, buffer) in &parts.buffers {
        statistics.push(take(name, buffer.value().shape(), buffer.value().dtype()));
    }
    unused.retain(|name| !ignore.contains(name));
    problems.extend(unused.iter().map(|name| format!("unexpected: {name}")));
    if !problems.is_empty() {
        return Err(Error::value(
            "load state",
            format!("{} names do not fit this network:\n  {}", problems.len(), problems.join("\n  ")),
        ));
    }
    for ((_, param), value) in parts.params.iter_mut().zip(values.into_iter().flatten()) {
        let value = param.stored().inside(&value)?;
        param.set(value.to_device(param.value().device())?)?;
    }
    for ((_, buffer), value) in parts.buffers.iter_mut().zip(statistics.into_iter().flatten()) {
        buffer.set(value.to_device(buffer.value().device())?)?;
    }
    Ok(())
}
