//! One lock over the state, who may call, and each thread's current context.

use super::error::{
    CUDA_ERROR_CONTEXT_IS_DESTROYED, CUDA_ERROR_INVALID_CONTEXT, CUDA_ERROR_INVALID_VALUE,
    CUDA_ERROR_NOT_INITIALIZED, CUDA_ERROR_NOT_PERMITTED, CUDA_ERROR_UNKNOWN, CUDA_SUCCESS, Cuda,
};
use super::options::Settings;
use super::state::State;
use super::{CUresult, Handle};
use crate::memory::DeviceMemory;
use std::cell::{Cell, RefCell};
use std::ops::{Deref, DerefMut};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, LazyLock, Mutex, MutexGuard, PoisonError};

static STATE: LazyLock<Mutex<State>> = LazyLock::new(|| {
    let (settings, settings_error) = match Settings::from_environment() {
        Ok(settings) => (settings, None),
        Err(error) => (Settings::default(), Some(error)),
    };
    Mutex::new(State { settings, settings_error, ..State::default() })
});

/// Signalled when the thread that ran queued work is done.
static IDLE: Condvar = Condvar::new();

thread_local! {
    static CONTEXTS: RefCell<Vec<Handle>> = const { RefCell::new(Vec::new()) };
    static IN_CALLBACK: Cell<bool> = const { Cell::new(false) };
    static CAPTURE_MODE: Cell<u32> = const { Cell::new(0) };
    static THREAD: u64 = {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        NEXT.fetch_add(1, Ordering::Relaxed)
    };
}

/// A number for this thread that no other thread has or had.
pub(super) fn thread_number() -> u64 {
    THREAD.with(|thread| *thread)
}

/// This thread's capture interaction mode (`cuThreadExchangeStreamCaptureMode`).
pub(super) fn capture_mode() -> &'static std::thread::LocalKey<Cell<u32>> {
    &CAPTURE_MODE
}

/// This thread's stack of contexts, the current one last.
pub(super) fn context_stack<R>(body: impl FnOnce(&mut Vec<Handle>) -> R) -> R {
    CONTEXTS.with(|stack| body(&mut stack.borrow_mut()))
}

/// The lock, held.
pub(super) struct Session(MutexGuard<'static, State>);

impl Deref for Session {
    type Target = State;
    fn deref(&self) -> &State {
        &self.0
    }
}

impl DerefMut for Session {
    fn deref_mut(&mut self) -> &mut State {
        &mut self.0
    }
}

impl Session {
    pub fn open() -> Session {
        Session(STATE.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Runs the body without the lock.
    pub fn unlocked<R>(self, body: impl FnOnce() -> R) -> (Session, R) {
        drop(self);
        let result = body();
        (Session::open(), result)
    }

    /// Runs one of the program's functions: without the lock, and forbidden to call the driver.
    pub fn call_back(self, function: impl FnOnce()) -> Session {
        self.unlocked(|| {
            IN_CALLBACK.set(true);
            function();
            IN_CALLBACK.set(false);
        })
        .0
    }

    /// Waits until no other thread runs queued work, and takes the turn.
    pub fn take_turn(mut self) -> Session {
        while self.running {
            self = Session(IDLE.wait(self.0).unwrap_or_else(PoisonError::into_inner));
        }
        self.running = true;
        self
    }

    /// Ends the turn.
    pub fn end_turn(mut self) -> Session {
        self.running = false;
        IDLE.notify_all();
        self
    }

    /// The device's memory.
    pub fn device(&self) -> Cuda<Arc<DeviceMemory>> {
        self.memory.clone().ok_or(CUDA_ERROR_NOT_INITIALIZED)
    }
}

/// Runs a driver function's body: catches panics, and refuses calls from inside callbacks.
pub(super) fn guard(body: impl FnOnce() -> Cuda<()>) -> CUresult {
    if IN_CALLBACK.get() {
        return CUDA_ERROR_NOT_PERMITTED;
    }
    match catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(())) => CUDA_SUCCESS,
        Ok(Err(code)) => code,
        Err(_) => CUDA_ERROR_UNKNOWN,
    }
}

/// For functions that need `cuInit` and no context.
pub(super) fn with_driver(body: impl FnOnce(Session) -> Cuda<()>) -> CUresult {
    guard(|| {
        let session = Session::open();
        session.device()?;
        body(session)
    })
}

/// For functions that need a current context in which nothing has failed.
pub(super) fn in_context(body: impl FnOnce(Session, Handle) -> Cuda<()>) -> CUresult {
    with_driver(|session| {
        let context = current(&session)?;
        session.healthy(context)?;
        body(session, context)
    })
}

/// The current context; an error where there is none or it was destroyed.
pub(super) fn current(session: &Session) -> Cuda<Handle> {
    let context = context_stack(|stack| stack.last().copied()).ok_or(CUDA_ERROR_INVALID_CONTEXT)?;
    match session.contexts.get(context) {
        Ok(found) if found.active => Ok(context),
        _ => Err(CUDA_ERROR_CONTEXT_IS_DESTROYED),
    }
}

impl State {
    /// The context's sticky fault, if there is one, as an error.
    pub fn healthy(&self, context: Handle) -> Cuda<()> {
        self.contexts.get(context)?.fault.map_or(Ok(()), Err)
    }
}

/// Writes a result through a pointer of the caller's, unless that is null.
pub(super) fn put<T>(to: Option<&mut T>, value: T) -> Cuda<()> {
    *to.ok_or(CUDA_ERROR_INVALID_VALUE)? = value;
    Ok(())
}
