//! The trainer, the evaluation and the command line of `pretext`.
//!
//! [`train`] trains, [`evaluate`] says what an encoder's features are worth, [`finetune`] trains it on with labels, [`compare`]
//! says which method suits some data, [`report`] shows runs on a page, [`commands`] are what a user can ask for. Methods are in
//! `objectives`, networks in `models`.

#![allow(clippy::single_range_in_vec_init, reason = "columns are lists of ranges, often of one")]

pub mod cli;
pub mod commands;
pub mod compare;
pub mod config;
pub mod device;
pub mod evaluate;
pub mod finetune;
pub mod output;
pub mod report;
pub mod train;
