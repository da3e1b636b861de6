//! The trainer, the evaluation and the command line of `pretext`.
//!
//! [`train`] pre-trains an encoder, [`evaluate`] says what its features are worth, [`commands`] are what a
//! user can ask for. Methods are in `objectives`, networks in `models`.

pub mod cli;
pub mod commands;
pub mod config;
pub mod device;
pub mod evaluate;
pub mod output;
pub mod train;
