//! Pre-training methods: one file each, and what they share.
//!
//! A method is an [`Objective`] (its networks, its views, its loss) and a [`Method`] entry that says what its
//! defaults are for given data. To add one, write its file and add one line to [`METHODS`].

pub mod objective;
pub mod schedule;
pub mod settings;
pub mod simclr;
pub mod training;

pub use objective::{DataProfile, Loss, Method, Objective, Progress};
pub use schedule::{CosineSchedule, MomentumSchedule};
pub use training::{Optimiser, Precision, RateScaling, Training};

use engine::{Error, ErrorKind, Result};

/// Every method.
pub const METHODS: &[Method] = &[simclr::METHOD];

/// The method called `name`; an error that lists all.
#[track_caller]
pub fn find(name: &str) -> Result<&'static Method> {
    METHODS.iter().find(|m| m.name == name).ok_or_else(|| {
        let names: Vec<&str> = METHODS.iter().map(|m| m.name).collect();
        let text = format!("no method is called '{name}'; there are: {}", names.join(", "));
        Error::new(ErrorKind::Usage, "method", text)
    })
}
