//! The way of input to a device: raw batches, staging, and views made there.
//!
//! Memory statistics, waits and captures belong to the whole device, so tests take turns.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod raw;
mod staging;

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Held by the test that uses the device.
fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}
