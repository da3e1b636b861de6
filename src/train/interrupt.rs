//! Ctrl-C: the first asks the run to save and stop after its current step, the second ends the program.

use std::sync::atomic::{AtomicUsize, Ordering};

static ASKED: AtomicUsize = AtomicUsize::new(0);

/// Starts listening for Ctrl-C and for termination. Calling it again changes nothing.
pub fn listen() {
    // An error means that another handler is installed already, by this program or by its host.
    let _ = ctrlc::set_handler(|| {
        if ASKED.fetch_add(1, Ordering::SeqCst) > 0 {
            std::process::exit(130);
        }
    });
}

/// Whether the user asked to stop.
pub fn asked() -> bool {
    ASKED.load(Ordering::SeqCst) > 0
}
