//! What launches are seen by: NVTX ranges for profilers, and a recording of every launch with its time on hardware or
//! its counters on the emulated device.
//!
//! Nothing is observed until asked for: a launch then costs one relaxed load more. [`start`] begins a recording,
//! [`stop`] ends it and gives a [`Record`] a launch; [`report`] makes a table and a Chrome trace of them.
//!
//! Launches that a graph captures run later, as a whole, so that they have no times of their own: a replay gives a record
//! for each of them and, on hardware, one more called [`GRAPH`] with the time of the whole. Who wants the time of each
//! kernel records a step that is not captured.

mod counters;
pub(super) mod nvtx;
pub mod report;

pub use counters::Counters;

use super::context::{self, Context, explain};
use super::extension;
use crate::memory;
use crate::{Error, ErrorKind, Result};
use cudarc::driver::{result, sys};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// The name of the record that holds a graph's replay.
pub const GRAPH: &str = "(graph)";

/// A launch, as its launcher describes it.
#[derive(Debug, Clone, PartialEq)]
pub struct Launched {
    /// The kernel's entry.
    pub kernel: &'static str,
    /// The operation that launched it (see [`crate::memory::operation`]).
    pub operation: &'static str,
    /// Blocks in x, y, z.
    pub grid: [u32; 3],
    /// Threads of a block in x, y, z.
    pub block: [u32; 3],
    /// Bytes of dynamic shared memory of a block.
    pub shared: usize,
    /// Bytes that must move to and from device memory.
    pub bytes: u64,
    /// Floating-point operations.
    pub flops: f64,
}

/// A launch, and what was seen of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// The launch.
    pub launch: Launched,
    /// The device's number.
    pub ordinal: usize,
    /// When the host put it on the stream, in milliseconds from the recording's start, and how long that took.
    pub host: (f64, f64),
    /// When the device began it, in milliseconds from the recording's start as far as the first launch on the device
    /// began when it was put on the stream. On hardware.
    pub start: Option<f64>,
    /// How long the device took, in milliseconds, with the few microseconds that two events cost. On hardware.
    pub milliseconds: Option<f32>,
    /// What it cost on the emulated device.
    pub counters: Option<Counters>,
}

/// Nobody has looked for NVTX yet.
const UNKNOWN: u8 = 1;
/// NVTX is here.
const NVTX: u8 = 2;
/// [`start`] was called.
const RECORDING: u8 = 4;
/// A graph is being captured.
const CAPTURING: u8 = 8;

/// Why launches are observed; 0 for not at all.
static WHY: AtomicU8 = AtomicU8::new(UNKNOWN);

static STATE: Mutex<State> = Mutex::new(State { recording: None, captures: Vec::new() });

struct State {
    recording: Option<Recording>,
    /// What the captures that go on have launched, by device.
    captures: Vec<(usize, Vec<Launched>)>,
}

struct Recording {
    began: Instant,
    entries: Vec<Entry>,
    /// Lines of counters that were fetched so far.
    lines: String,
}

/// Events before and after a launch.
struct Events(sys::CUevent, sys::CUevent);

// SAFETY: the driver's handles may be used from any thread.
unsafe impl Send for Events {}

struct Entry {
    launch: Launched,
    ordinal: usize,
    host: (f64, f64),
    events: Option<Events>,
}

fn state() -> MutexGuard<'static, State> {
    STATE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A launch that is observed, between [`begin`] and [`Observed::end`].
pub(super) struct Observed {
    launch: Launched,
    context: &'static Context,
    why: u8,
    before: Option<sys::CUevent>,
    at: Instant,
}

/// Called before a launch. Nothing, at the cost of one load, where no one observes.
#[inline]
pub(super) fn begin(context: &'static Context, launch: impl FnOnce() -> Launched) -> Option<Observed> {
    match WHY.load(Ordering::Relaxed) {
        0 => None,
        why => observe(context, launch(), why),
    }
}

#[cold]
fn observe(context: &'static Context, launch: Launched, why: u8) -> Option<Observed> {
    let why = if why & UNKNOWN != 0 { look_for_nvtx() } else { why };
    if why == 0 {
        return None;
    }
    if why & NVTX != 0 {
        nvtx::push(launch.kernel);
    }
    let timed = why & RECORDING != 0 && !context.info().emulated && !is_captured(context);
    let before = timed.then(|| event(context)).flatten();
    Some(Observed { launch, context, why, before, at: Instant::now() })
}

fn look_for_nvtx() -> u8 {
    if nvtx::is_here() {
        WHY.fetch_or(NVTX, Ordering::Relaxed);
    }
    WHY.fetch_and(!UNKNOWN, Ordering::Relaxed) & !UNKNOWN
}

fn is_captured(context: &Context) -> bool {
    state().captures.iter().any(|(ordinal, _)| *ordinal == context.ordinal())
}

/// A new event on the compute stream; none where the driver fails, which the launch itself will then show.
fn event(context: &Context) -> Option<sys::CUevent> {
    let event = result::event::create(sys::CUevent_flags::CU_EVENT_DEFAULT).ok()?;
    // SAFETY: event and stream are live.
    match unsafe { result::event::record(event, context.compute_stream()) } {
        Ok(()) => Some(event),
        Err(_) => {
            destroy(event);
            None
        }
    }
}

fn destroy(event: sys::CUevent) {
    // SAFETY: every event is destroyed once, by its owner. An error leaves nothing to do.
    let _ = unsafe { result::event::destroy(event) };
}

impl Observed {
    /// Called after the launch.
    pub(super) fn end(self, launched: bool) {
        let Observed { launch, context, why, before, at } = self;
        let after = before.and_then(|_| event(context));
        let took = at.elapsed();
        if why & NVTX != 0 {
            nvtx::pop();
        }
        let events = match (before, after) {
            (Some(before), Some(after)) if launched => Some(Events(before, after)),
            (before, after) => {
                before.into_iter().chain(after).for_each(destroy);
                None
            }
        };
        // The emulated device counts the launches in a graph one by one.
        let counted_apart = launch.kernel == GRAPH && context.info().emulated;
        if !launched || counted_apart || why & (RECORDING | CAPTURING) == 0 {
            return;
        }
        let ordinal = context.ordinal();
        let mut state = state();
        if let Some((_, captured)) = state.captures.iter_mut().find(|(o, _)| *o == ordinal) {
            captured.push(launch);
        } else if let Some(recording) = &mut state.recording {
            let host = (at.duration_since(recording.began).as_secs_f64() * 1e3, took.as_secs_f64() * 1e3);
            recording.add(Entry { launch, ordinal, host, events });
        } else if let Some(Events(before, after)) = events {
            [before, after].into_iter().for_each(destroy);
        }
    }
}

impl Recording {
    fn add(&mut self, entry: Entry) {
        /// The emulated device keeps a limited number of lines.
        const FETCH_EVERY: usize = 1 << 12;
        self.entries.push(entry);
        if self.entries.len().is_multiple_of(FETCH_EVERY) {
            self.lines.push_str(&extension::counters());
        }
    }
}

/// A graph of a device is being captured: its launches are noted, not recorded.
pub(super) fn begin_capture(ordinal: usize) {
    state().captures.push((ordinal, Vec::new()));
    WHY.fetch_or(CAPTURING, Ordering::Relaxed);
}

/// The launches that were captured.
pub(super) fn end_capture(ordinal: usize) -> Vec<Launched> {
    let mut state = state();
    let at = state.captures.iter().position(|(o, _)| *o == ordinal);
    let captured = at.map(|at| state.captures.swap_remove(at).1);
    if state.captures.is_empty() {
        WHY.fetch_and(!CAPTURING, Ordering::Relaxed);
    }
    captured.unwrap_or_default()
}

/// Called before a graph is replayed.
#[inline]
pub(super) fn begin_replay(context: &'static Context, launches: &[Launched]) -> Option<Observed> {
    begin(context, || Launched {
        kernel: GRAPH,
        operation: "graph",
        grid: [launches.len() as u32, 1, 1],
        block: [1; 3],
        shared: 0,
        bytes: launches.iter().map(|launch| launch.bytes).sum(),
        flops: launches.iter().map(|launch| launch.flops).sum(),
    })
}

/// Called after a graph was replayed.
pub(super) fn end_replay(replay: Observed, launches: &[Launched], launched: bool) {
    let (context, recording) = (replay.context, replay.why & RECORDING != 0 && launched);
    replay.end(launched);
    if let Some(recording) = state().recording.as_mut().filter(|_| recording) {
        let now = recording.began.elapsed().as_secs_f64() * 1e3;
        for launch in launches {
            let (launch, ordinal) = (launch.clone(), context.ordinal());
            recording.add(Entry { launch, ordinal, host: (now, 0.0), events: None });
        }
    }
}

/// Begins to record every launch of this process.
///
/// # Errors
///
/// A recording goes on already; a device that was started fails.
#[track_caller]
pub fn start() -> Result<()> {
    context::started().try_for_each(Context::synchronize)?;
    let mut state = state();
    if state.recording.is_some() {
        return Err(Error::new(ErrorKind::Value, "profile", "a recording goes on: stop it first"));
    }
    // What ran before is none of this recording's.
    extension::counters();
    state.recording = Some(Recording { began: Instant::now(), entries: Vec::new(), lines: String::new() });
    WHY.fetch_or(RECORDING, Ordering::Relaxed);
    Ok(())
}

/// Waits for the devices, ends the recording and gives what it saw, in the order of launching. Nothing where none was
/// started.
///
/// # Errors
///
/// A kernel failed.
#[track_caller]
pub fn stop() -> Result<Vec<Record>> {
    WHY.fetch_and(!RECORDING, Ordering::Relaxed);
    let Some(mut recording) = state().recording.take() else { return Ok(Vec::new()) };
    let waited = context::started().try_for_each(Context::synchronize);
    recording.lines.push_str(&extension::counters());
    let records = waited.and_then(|()| records(&recording));
    let events = recording.entries.into_iter().filter_map(|entry| entry.events);
    events.flat_map(|Events(before, after)| [before, after]).for_each(destroy);
    records
}

fn records(recording: &Recording) -> Result<Vec<Record>> {
    let mut costs = counters::Lines::new(&recording.lines);
    // By device, its first event and when the host put that on the stream.
    let mut base: Vec<(usize, sys::CUevent, f64)> = Vec::new();
    let fail = |e| explain("profile", e);
    let mut records = Vec::with_capacity(recording.entries.len());
    for Entry { launch, ordinal, host, events } in &recording.entries {
        let (mut start, mut milliseconds) = (None, None);
        if let Some(Events(before, after)) = events {
            let _bound = super::context(*ordinal)?.bind()?;
            if !base.iter().any(|(o, ..)| o == ordinal) {
                base.push((*ordinal, *before, host.0));
            }
            // SAFETY: the events were recorded, and the device was waited for.
            unsafe {
                milliseconds = Some(result::event::elapsed(*before, *after).map_err(fail)?);
                if let Some((_, first, at)) = base.iter().find(|(o, ..)| o == ordinal) {
                    start = Some(at + f64::from(result::event::elapsed(*first, *before).map_err(fail)?));
                }
            }
        }
        records.push(Record {
            launch: launch.clone(),
            ordinal: *ordinal,
            host: *host,
            start,
            milliseconds,
            counters: costs.of(launch.kernel),
        });
    }
    Ok(records)
}

/// An NVTX range with an operation's name, where NVTX is here; whether there is one to [`nvtx::pop`].
#[inline]
pub(crate) fn push_operation(name: &str) -> bool {
    let there = WHY.load(Ordering::Relaxed) & NVTX != 0;
    if there {
        nvtx::push(name);
    }
    there
}

/// Ends the range of [`push_operation`].
pub(crate) fn pop_operation() {
    nvtx::pop();
}

/// The launch as its launcher describes it, on behalf of the thread's operation.
pub(super) fn launched(
    kernel: &'static str,
    grid: [u32; 3],
    block: [u32; 3],
    shared: usize,
    bytes: u64,
    flops: f64,
) -> Launched {
    Launched { kernel, operation: memory::scope().0, grid, block, shared, bytes, flops }
}
