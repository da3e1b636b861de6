//! The requests: the device is opened once, cases are prepared on it, launched, captured, read and closed.

use crate::check;
use crate::computation::{Computation, Source, Tensors, Work};
use crate::families::Case;
use engine::cuda::graph::Graph;
use engine::cuda::nvrtc::Nvrtc;
use engine::cuda::profile::report;
use engine::cuda::{self, Driver, driver, memory};
use engine::{DType, Device, Error, ErrorKind, Result, Tensor};
use kernels::array::Array;
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

/// What can be asked.
#[derive(Deserialize)]
#[serde(tag = "do", rename_all = "snake_case", deny_unknown_fields)]
enum Request {
    /// Starts the first device of the driver, `cuda` or `emulated`, and gives what is known of it, with the stream's
    /// address.
    Open { device: String },
    /// Bytes and FLOPs of a case, and whether it writes its inputs. Makes nothing.
    Describe { case: Case, dtype: String },
    /// Makes as many sets of inputs as asked for, each with values of its own, and gives a handle and their addresses.
    Prepare { case: Case, dtype: String, sets: usize, seed: u64 },
    /// Launches the case once for each of the next `count` sets in turn.
    Launch { handle: u64, count: usize },
    /// Captures one pass over all sets as a graph.
    Capture { handle: u64 },
    /// Runs the captured pass `count` times.
    Replay { handle: u64, count: usize },
    /// Drops the results, the graph and all sets but the first, which is made anew, and gives its addresses: for a case
    /// that has written its inputs.
    Fresh { handle: u64 },
    /// Addresses of the results for the first set: what was last launched or replayed. A case that writes its inputs is
    /// run once on it.
    Results { handle: u64 },
    /// The values of the first set's input, or of its result, of this name.
    Read { handle: u64, name: String, input: bool },
    /// Runs the first set and compares the results with the CPU backend's.
    Check { handle: u64 },
    /// Gives back the case's memory.
    Close { handle: u64 },
}

/// A case that was prepared.
struct Prepared {
    computation: Box<dyn Computation>,
    dtype: DType,
    seed: u64,
    sets: Vec<Tensors>,
    /// The results for each set, kept so that none is written over another's.
    results: Vec<Tensors>,
    /// The set to launch next.
    next: usize,
    graph: Option<Graph>,
}

struct State {
    handles: u64,
    cases: BTreeMap<u64, Prepared>,
}

static STATE: Mutex<State> = Mutex::new(State { handles: 0, cases: BTreeMap::new() });

/// The device of all cases.
const DEVICE: Device = Device::Cuda(0);

/// Answers a request.
pub(crate) fn answer(text: &str) -> std::result::Result<Value, String> {
    let request: Request = serde_json::from_str(text).map_err(|e| format!("not a request: {e}"))?;
    let mut state = STATE.lock().unwrap_or_else(PoisonError::into_inner);
    state.answer(request).map_err(|e| e.to_string())
}

impl State {
    fn answer(&mut self, request: Request) -> Result<Value> {
        match request {
            Request::Open { device } => open(&device),
            Request::Describe { case, dtype } => {
                let computation = case.computation();
                let Work { bytes, flops } = computation.work(dtype_of(&dtype)?.size());
                Ok(json!({"bytes": bytes, "flops": flops, "in_place": !computation.in_place().is_empty()}))
            }
            Request::Prepare { case, dtype, sets, seed } => {
                let prepared = Prepared::new(case.computation(), dtype_of(&dtype)?, sets, seed)?;
                self.handles += 1;
                let inputs: Vec<Value> =
                    prepared.sets.iter().map(|set| addresses(set)).collect::<Result<_>>()?;
                self.cases.insert(self.handles, prepared);
                Ok(json!({"handle": self.handles, "inputs": inputs}))
            }
            Request::Launch { handle, count } => {
                let case = self.case(handle)?;
                (0..count).try_for_each(|_| case.launch())?;
                Ok(json!({}))
            }
            Request::Capture { handle } => self.case(handle)?.capture().map(|()| json!({})),
            Request::Replay { handle, count } => {
                let Some(graph) = &mut self.case(handle)?.graph else {
                    return Err(Error::value("replay", "nothing was captured"));
                };
                (0..count).try_for_each(|_| graph.launch())?;
                Ok(json!({}))
            }
            Request::Fresh { handle } => {
                let case = self.case(handle)?;
                case.fresh()?;
                Ok(json!({"inputs": addresses(&case.sets[0])?}))
            }
            Request::Results { handle } => {
                let results = self.case(handle)?.results()?;
                Ok(json!({"results": addresses(&results)?}))
            }
            Request::Read { handle, name, input } => {
                let case = self.case(handle)?;
                let tensors = if input { case.sets[0].clone() } else { case.results()? };
                let Some((_, tensor)) = tensors.iter().find(|(n, _)| *n == name) else {
                    return Err(Error::value("read", format!("there is no '{name}'")));
                };
                Ok(json!({"values": values(tensor)?}))
            }
            Request::Check { handle } => {
                let case = self.case(handle)?;
                let compared = check::against_cpu(case.computation.as_ref(), &case.sets[0])?;
                Ok(json!({"results": compared}))
            }
            Request::Close { handle } => {
                self.cases.remove(&handle);
                memory::trim()?;
                Ok(json!({}))
            }
        }
    }

    fn case(&mut self, handle: u64) -> Result<&mut Prepared> {
        self.cases
            .get_mut(&handle)
            .ok_or_else(|| Error::value("benchmark", format!("no case has handle {handle}")))
    }
}

fn dtype_of(name: &str) -> Result<DType> {
    let known = [DType::F32, DType::BF16].into_iter().find(|dtype| dtype.name() == name);
    known.ok_or_else(|| Error::value("dtype", format!("'{name}' is neither f32 nor bf16")))
}

/// Chooses the driver, starts the device and describes it.
fn open(device: &str) -> Result<Value> {
    match device {
        "cuda" => driver::select(Driver::System)?,
        "emulated" => {
            let folder = emulator::library::folder()
                .map_err(|e| Error::new(ErrorKind::Device, "emulated device", e.to_string()))?;
            driver::select(Driver::Emulated(folder))?;
        }
        _ => {
            return Err(Error::new(
                ErrorKind::Usage,
                "device",
                format!("'{device}' is neither cuda nor emulated"),
            ));
        }
    }
    let context = cuda::context(0)?;
    let info = context.info();
    let nvrtc = Nvrtc::find()?;
    let peaks = report::peaks(info).map(|peaks| {
        json!({"bytes_per_second": peaks.bandwidth, "bf16_flops": peaks.bf16, "f32_flops": peaks.f32})
    });
    Ok(json!({
        "name": info.name, "emulated": info.emulated, "compute_capability": info.compute_capability,
        "memory": info.memory, "driver_version": info.driver_version,
        "multiprocessors": context.limits().multiprocessors, "nvrtc": nvrtc.release()?, "peaks": peaks,
        "stream": context.compute_stream() as usize, "crate": env!("CARGO_PKG_VERSION"),
    }))
}

/// Name, shape, type and address of each tensor.
fn addresses(tensors: &[(String, Tensor)]) -> Result<Value> {
    let one = |(name, tensor): &(String, Tensor)| {
        Ok(json!({
            "name": name, "shape": tensor.shape(), "dtype": tensor.dtype().name(),
            "address": tensor.device_address("address")?,
        }))
    };
    tensors.iter().map(one).collect::<Result<Vec<Value>>>().map(Value::Array)
}

/// The elements as numbers.
fn values(tensor: &Tensor) -> Result<Value> {
    Ok(match tensor.dtype() {
        DType::I32 => json!(tensor.to_vec::<i32>()?),
        _ => json!(Array::<f64>::from_tensor(tensor)?.data),
    })
}

fn inputs(computation: &dyn Computation, dtype: DType, seed: u64) -> Result<Tensors> {
    computation.inputs(&mut Source { device: DEVICE, dtype, seed, made: 0 })
}

impl Prepared {
    fn new(computation: Box<dyn Computation>, dtype: DType, sets: usize, seed: u64) -> Result<Prepared> {
        let make = |i: usize| inputs(computation.as_ref(), dtype, seed + i as u64);
        let sets = (0..sets.max(1)).map(make).collect::<Result<Vec<_>>>()?;
        // What only the making of inputs needed goes back.
        memory::trim()?;
        let results = vec![Tensors::new(); sets.len()];
        Ok(Prepared { computation, dtype, seed, sets, results, next: 0, graph: None })
    }

    fn launch(&mut self) -> Result<()> {
        let i = self.next;
        self.next = (i + 1) % self.sets.len();
        self.results[i] = self.computation.run(&mut self.sets[i])?;
        Ok(())
    }

    /// One pass over all sets runs first, so that kernels are loaded.
    fn capture(&mut self) -> Result<()> {
        self.graph = None;
        self.next = 0;
        (0..self.sets.len()).try_for_each(|_| self.launch())?;
        let (computation, sets) = (&self.computation, &mut self.sets);
        let pass = || sets.iter_mut().map(|set| computation.run(set)).collect::<Result<Vec<_>>>();
        let (graph, results) = Graph::capture(DEVICE, pass)?;
        (self.graph, self.results) = (Some(graph), results);
        Ok(())
    }

    fn fresh(&mut self) -> Result<()> {
        (self.graph, self.next) = (None, 0);
        self.sets.clear();
        self.results = vec![Tensors::new()];
        self.sets.push(inputs(self.computation.as_ref(), self.dtype, self.seed)?);
        Ok(())
    }

    fn results(&mut self) -> Result<Tensors> {
        let prefixes = self.computation.in_place();
        if !prefixes.is_empty() {
            self.computation.run(&mut self.sets[0])?;
            let written =
                |(name, _): &&(String, Tensor)| prefixes.iter().any(|prefix| name.starts_with(prefix));
            return Ok(self.sets[0].iter().filter(written).cloned().collect());
        }
        if self.results[0].is_empty() {
            self.results[0] = self.computation.run(&mut self.sets[0])?;
        }
        Ok(self.results[0].clone())
    }
}
