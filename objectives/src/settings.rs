//! A method's own settings: defaults, what the user changed, and checks.

use engine::{Error, ErrorKind, Result};
use serde::de::DeserializeOwned;
use toml::Table;

/// `given` over `defaults`, as the method's struct (which should deny unknown fields).
///
/// Errors name the method and the field: one that it does not have, or a value of the wrong type.
#[track_caller]
pub fn parse<T: DeserializeOwned>(method: &str, defaults: &Table, given: &Table) -> Result<T> {
    let mut merged = defaults.clone();
    merged.extend(given.iter().map(|(name, value)| (name.clone(), value.clone())));
    merged.try_into().map_err(|e| {
        Error::new(
            ErrorKind::Usage,
            format!("{method} settings"),
            e.to_string().trim_end().replace('\n', " "),
        )
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
