//! Streams as queues. Nothing runs when it is queued: it runs when something waits for it, with all that it depends on,
//! so that a program which forgets to wait sees old data. `PRETEXT_EMULATED_STREAMS=eager` runs it at once.
//!
//! One thread at a time runs queued work (its "turn"); the lock is free while a kernel, a copy or a host function runs.
//! Operations are numbered over all streams, and depend only on smaller numbers: so there is always one that can run.

use super::error::{
    CUDA_ERROR_INVALID_HANDLE, CUDA_ERROR_NOT_SUPPORTED, CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, CUDA_SUCCESS,
    Cuda,
};
use super::session::{Session, thread_number};
use super::state::{Operation, State, Stream, Work};
use super::work::{Fault, Task};
use super::{CUresult, Handle};
use std::collections::VecDeque;
use std::time::Instant;

/// Operations that a stream queues before the caller has to wait, as on a real device.
const DEPTH: usize = 1024;

/// Lines of counters that are kept for `pretextEmulatedCounters`; older ones are dropped.
const COUNTER_LINES: usize = 1 << 16;

/// `CU_STREAM_NON_BLOCKING`.
pub(super) const NON_BLOCKING: u32 = 1;

impl State {
    /// The stream that a handle names in a context: null and 1 are the legacy stream, 2 the thread's own.
    pub fn stream(&mut self, context: Handle, stream: Handle) -> Cuda<Handle> {
        let stream = match stream {
            0 | 1 => self.contexts.get(context)?.legacy,
            2 => self.own_stream(context)?,
            other => other,
        };
        if self.streams.get(stream)?.context == context { Ok(stream) } else { Err(CUDA_ERROR_INVALID_HANDLE) }
    }

    fn own_stream(&mut self, context: Handle) -> Cuda<Handle> {
        let thread = thread_number();
        if let Some(&stream) = self.contexts.get(context)?.threads.get(&thread) {
            return Ok(stream);
        }
        let stream = self.streams.add(Stream::new(context, 0, 0));
        self.streams.get_mut(stream)?.built_in = true;
        self.contexts.get_mut(context)?.threads.insert(thread, stream);
        Ok(stream)
    }

    /// Whether a stream has passed an operation.
    pub fn is_done(&self, stream: Handle, operation: u64) -> bool {
        let Ok(stream) = self.streams.get(stream) else { return true };
        stream.queue.front().is_none_or(|front| front.number > operation)
    }

    /// What a stream's next operation waits for.
    fn waits_for(&self, stream: Handle) -> Option<(Handle, u64)> {
        let front = self.streams.get(stream).ok()?.queue.front()?;
        front.after.iter().copied().find(|&(other, operation)| !self.is_done(other, operation))
    }

    /// The operations that a new one on the stream has to follow because of the legacy stream's rule: it waits for all
    /// blocking streams of the context, and they wait for it.
    fn implied(&self, stream: Handle) -> Vec<(Handle, u64)> {
        let Ok(own) = self.streams.get(stream) else { return Vec::new() };
        let before = |other: &Stream| {
            other.context == own.context
                && if own.legacy { other.flags & NON_BLOCKING == 0 } else { other.legacy }
                && !other.queue.is_empty()
        };
        if own.flags & NON_BLOCKING != 0 {
            return Vec::new();
        }
        let others = self.streams.iter().filter(|&(handle, other)| handle != stream && before(other));
        others.map(|(handle, other)| (handle, other.last)).collect()
    }

    /// Makes a failure stick to its context, and drops what is queued there. Returns the callbacks among that: they are
    /// called with the code.
    fn fail(&mut self, context: Handle, fault: Fault) -> Vec<(Handle, Work)> {
        eprintln!("pretext emulated device: {}", fault.text);
        if let Ok(context) = self.contexts.get_mut(context) {
            context.fault.get_or_insert(fault.code);
        }
        self.last_report = fault.text;
        let mut dropped = Vec::new();
        for (handle, stream) in self.streams.iter_mut().filter(|(_, stream)| stream.context == context) {
            let work = stream.queue.drain(..).flat_map(|operation| operation.work);
            dropped.extend(work.map(|work| (handle, work)));
        }
        dropped.retain(|(_, work)| matches!(work, Work::Callback { .. }));
        dropped
    }
}

impl Stream {
    pub fn new(context: Handle, flags: u32, priority: i32) -> Stream {
        Stream {
            context,
            flags,
            priority,
            legacy: false,
            built_in: false,
            queue: VecDeque::new(),
            last: 0,
            capturing: None,
        }
    }
}

impl Session {
    /// Queues work on a stream that does not capture, after what the stream holds and the operations named. Returns its
    /// number.
    pub fn enqueue(
        mut self,
        stream: Handle,
        work: impl IntoIterator<Item = Work>,
        mut after: Vec<(Handle, u64)>,
    ) -> Cuda<(Session, u64)> {
        let full = self.streams.get(stream)?.queue.front().map(|front| front.number);
        if self.streams.get(stream)?.queue.len() >= DEPTH
            && let Some(oldest) = full
        {
            self = self.run_through(stream, oldest);
        }
        after.extend(self.implied(stream));
        self.operations += 1;
        let number = self.operations;
        let eager = self.settings.eager;
        let target = self.streams.get_mut(stream)?;
        let context = target.context;
        target.queue.push_back(Operation { number, after, work: work.into_iter().collect() });
        target.last = number;
        if eager {
            self = self.run_through(stream, number);
            self.healthy(context)?;
        }
        Ok((self, number))
    }

    /// Does a task on a stream: adds it to the graph that the stream captures, or queues it; `wait` runs it.
    pub fn submit(self, stream: Handle, task: Task, wait: bool) -> Cuda<()> {
        let mut session = self;
        if session.capturing(stream)? {
            if wait {
                session.invalidate(stream);
                return Err(CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
            }
            return session.capture_task(stream, Some(task));
        }
        session.refuse_implicit(stream)?;
        let context = session.streams.get(stream)?.context;
        let (session, number) = session.enqueue(stream, [Work::Task(task)], Vec::new())?;
        if wait {
            let session = session.run_through(stream, number);
            session.healthy(context)?;
        }
        Ok(())
    }

    /// Queues work that graphs cannot hold: frees and callbacks.
    pub fn submit_uncapturable(self, stream: Handle, work: Work) -> Cuda<(Session, u64)> {
        let mut session = self;
        if session.capturing(stream)? {
            session.invalidate(stream);
            let callback = matches!(work, Work::Callback { .. });
            return Err(if callback {
                CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED
            } else {
                CUDA_ERROR_NOT_SUPPORTED
            });
        }
        session.refuse_implicit(stream)?;
        session.enqueue(stream, [work], Vec::new())
    }

    /// Runs a stream until it has passed the operation.
    pub fn run_through(self, stream: Handle, operation: u64) -> Session {
        let mut session = self.take_turn();
        while let Some(next) = session.runnable(stream, operation) {
            session = session.run_front(next);
        }
        session.end_turn()
    }

    /// Runs all of a stream.
    pub fn run_stream(self, stream: Handle) -> Session {
        let last = self.streams.get(stream).map_or(0, |stream| stream.last);
        self.run_through(stream, last)
    }

    /// Runs all of a context's streams.
    pub fn run_context(mut self, context: Handle) -> Session {
        let streams: Vec<(Handle, u64)> = self
            .streams
            .iter()
            .filter(|(_, stream)| stream.context == context)
            .map(|(handle, stream)| (handle, stream.last))
            .collect();
        for (stream, last) in streams {
            self = self.run_through(stream, last);
        }
        self
    }

    /// Runs one piece of what stands before the end of an operation, so that a program which polls gets on. Returns
    /// whether the stream had passed the operation already.
    pub fn poll(self, stream: Handle, operation: u64) -> (Session, bool) {
        if self.is_done(stream, operation) {
            return (self, true);
        }
        if self.running {
            return (self, false);
        }
        let mut session = self.take_turn();
        if let Some(next) = session.runnable(stream, operation) {
            session = session.run_front(next);
        }
        (session.end_turn(), false)
    }

    /// A stream whose next operation can run, and has to before `stream` can pass `operation`.
    fn runnable(&self, stream: Handle, operation: u64) -> Option<Handle> {
        if self.is_done(stream, operation) {
            return None;
        }
        let mut next = stream;
        while let Some((other, _)) = self.waits_for(next) {
            next = other;
        }
        Some(next)
    }

    /// Runs one piece of a stream's next operation. The operation stays in the queue until its last piece is done, so
    /// that nobody takes it for done too early.
    fn run_front(mut self, stream: Handle) -> Session {
        let Ok(found) = self.streams.get_mut(stream) else { return self };
        let context = found.context;
        let Some(front) = found.queue.front_mut() else { return self };
        let number = front.number;
        let result = match front.work.pop_front() {
            Some(work) => self.perform(stream, number, work),
            None => (self, Ok(())),
        };
        let (mut session, result) = result;
        match result {
            Ok(()) => {
                if let Ok(found) = session.streams.get_mut(stream)
                    && found.queue.front().is_some_and(|front| front.work.is_empty())
                {
                    found.queue.pop_front();
                }
            }
            Err(fault) => {
                let code = fault.code;
                for (stream, work) in session.fail(context, fault) {
                    session = session.call(stream, work, code);
                }
            }
        }
        session
    }

    fn perform(mut self, stream: Handle, number: u64, work: Work) -> (Session, Result<(), Fault>) {
        match work {
            Work::Task(Task::Host(host)) => {
                // SAFETY: the program gave the function with its argument to be called once the stream gets here.
                (self.call_back(|| unsafe { (host.function)(host.data as *mut _) }), Ok(()))
            }
            Work::Task(task) => {
                let Some(memory) = self.memory.clone() else { return (self, Ok(())) };
                let options = self.settings.exec.clone();
                let (mut session, result) = self.unlocked(|| task.run(&memory, &options));
                let result = result.map(|line| {
                    if let Some(line) = line {
                        if session.counters.len() >= COUNTER_LINES {
                            session.counters.pop_front();
                        }
                        session.counters.push_back(line);
                    }
                });
                (session, result)
            }
            Work::Record { event } => {
                if let Ok(event) = self.events.get_mut(event) {
                    event.time = Some((number, Instant::now()));
                }
                (self, Ok(()))
            }
            Work::Free { address } => {
                self.release(address);
                (self, Ok(()))
            }
            callback @ Work::Callback { .. } => (self.call(stream, callback, CUDA_SUCCESS), Ok(())),
        }
    }

    fn call(self, stream: Handle, work: Work, status: CUresult) -> Session {
        let Work::Callback { function, data } = work else { return self };
        // SAFETY: the program gave the function with its argument to be called once the stream gets here.
        self.call_back(|| unsafe { function(stream, status, data as *mut _) })
    }
}
