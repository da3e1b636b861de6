//! A method's own settings: what the configuration says, and checks.

use engine::{Error, ErrorKind, Result};
use serde::de::DeserializeOwned;
use toml::Table;

/// `given` as the method's struct, which should deny unknown fields.
///
/// Errors name the method and the field: one that it does not have, one that is missing, or a value of the wrong type.
#[track_caller]
pub fn parse<T: DeserializeOwned>(method: &str, given: &Table) -> Result<T> {
    given.clone().try_into().map_err(|e: toml::de::Error| {
        let text = e.to_string().trim_end().replace('\n', " ");
        Error::new(ErrorKind::Usage, format!("{method} settings"), text)
    })
}

/// An error that says the first rule which does not hold.
#[track_caller]
pub fn require(method: &str, rules: &[(bool, String)]) -> Result<()> {
    match rules.iter().find(|(holds, _)| !holds) {
        None => Ok(()),
        Some((_, rule)) => Err(Error::new(ErrorKind::Usage, format!("{method} settings"), rule.clone())),
    }
}

/// The rule that a temperature, or any number like it, is positive and finite.
pub fn positive(name: &str, value: f32) -> (bool, String) {
    (value > 0.0 && value.is_finite(), format!("{name} must be positive, not {value}"))
}

/// The rule that a number of things is at least one.
pub fn at_least_one(name: &str, value: usize) -> (bool, String) {
    (value > 0, format!("{name} must be at least 1"))
}

/// The rule that a number is a momentum, a probability or a share.
pub fn part(name: &str, value: f32) -> (bool, String) {
    ((0.0..=1.0).contains(&value), format!("{name} must be in 0 ..= 1, not {value}"))
}

/// An error unless encoder and data have the same number of channels.
#[track_caller]
pub fn require_channels(method: &str, encoder: usize, data: usize) -> Result<()> {
    match encoder == data {
        true => Ok(()),
        false => {
            let text = "the encoder and the data have different numbers of channels";
            Err(Error::value(method, text).with("encoder", encoder).with("data", data))
        }
    }
}

/// The error of an objective whose schedules were not made.
#[track_caller]
pub fn not_begun(method: &str) -> Error {
    Error::value(method, "begin was not called before the first step")
}
