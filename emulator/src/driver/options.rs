//! How the emulated device behaves: every `PRETEXT_EMULATED_*` variable, read once at `cuInit`, and the same settings at
//! run time through `pretextEmulatedSetOption`.
//!
//! | variable | values (default first) | meaning |
//! |---|---|---|
//! | `PRETEXT_EMULATED_CHECKS` | `on`, `off` | look for faults while kernels run |
//! | `PRETEXT_EMULATED_COUNTERS` | `on`, `off` | count what launches cost |
//! | `PRETEXT_EMULATED_WORKERS` | the machine's threads, or a number | threads that run blocks |
//! | `PRETEXT_EMULATED_SEED` | `none`, or a number | shuffles the order of blocks and warps |
//! | `PRETEXT_EMULATED_COPIES` | `early`, `late` | asynchronous copies in kernels land at issue, or at the last legal moment |
//! | `PRETEXT_EMULATED_SCHEDULES` | `one`, `all` | run each launch under all schedules and compare the bits |
//! | `PRETEXT_EMULATED_MMA` | `hopper`, `ampere`, `float32` | how tensor cores round |
//! | `PRETEXT_EMULATED_STREAMS` | `lazy`, `eager` | queued work runs when something waits for it, or at once |
//! | `PRETEXT_EMULATED_MEMORY` | half of the machine's, or MiB | device memory; fixed once `cuInit` was called |
//! | `PRETEXT_EMULATED_ARCH` | `90`, `80` | compute capability |
//! | `PRETEXT_EMULATED_INSTRUCTION_LIMIT` | a number | warp instructions of a block before it counts as hung |
//!
//! With lazy streams nothing runs until the program waits (or 1024 operations are queued on a stream): a result read
//! without waiting is the old one. A host thread that waits for the device without any driver call, by spinning on
//! memory that a host function writes, needs eager streams.

use crate::exec;

/// What the variables' names begin with.
pub const PREFIX: &str = "PRETEXT_EMULATED_";

/// The variables' names without [`PREFIX`].
pub const NAMES: [&str; 11] = [
    "CHECKS",
    "COUNTERS",
    "WORKERS",
    "SEED",
    "COPIES",
    "SCHEDULES",
    "MMA",
    "STREAMS",
    "MEMORY",
    "ARCH",
    "INSTRUCTION_LIMIT",
];

/// All settings of the emulated device.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How launches run.
    pub exec: exec::Options,
    /// Queued work runs at once.
    pub eager: bool,
    /// Device memory in MiB; None: half of the machine's.
    pub memory: Option<u64>,
    /// Compute capability: 80 or 90.
    pub arch: u32,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings { exec: exec::Options::default(), eager: false, memory: None, arch: 90 }
    }
}

impl Settings {
    /// Reads the environment; the error is a sentence that names the variable, its value and what it may be.
    pub fn from_environment() -> Result<Settings, String> {
        let mut settings = Settings::default();
        for name in NAMES {
            if let Some(value) = std::env::var_os(format!("{PREFIX}{name}")) {
                settings.set(name, &value.to_string_lossy())?;
            }
        }
        Ok(settings)
    }

    /// Sets one by its name, with or without [`PREFIX`].
    pub fn set(&mut self, name: &str, value: &str) -> Result<(), String> {
        let name = name.strip_prefix(PREFIX).unwrap_or(name);
        let choose = |words: [&str; 2]| {
            let bad = || format!("{PREFIX}{name} is '{value}', but must be '{}' or '{}'", words[0], words[1]);
            words.iter().position(|word| *word == value).map(|index| index == 0).ok_or_else(bad)
        };
        let number = |least: u64| {
            let bad =
                || format!("{PREFIX}{name} is '{value}', but must be a whole number of at least {least}");
            value.parse::<u64>().ok().filter(|number| *number >= least).ok_or_else(bad)
        };
        match name {
            "CHECKS" => self.exec.checks = choose(["on", "off"])?,
            "COUNTERS" => self.exec.counters = choose(["on", "off"])?,
            "WORKERS" => self.exec.workers = usize::try_from(number(1)?).unwrap_or(usize::MAX),
            "SEED" => self.exec.seed = if value == "none" { None } else { Some(number(0)?) },
            "COPIES" => self.exec.late_copies = choose(["late", "early"])?,
            "SCHEDULES" => self.exec.every_schedule = choose(["all", "one"])?,
            "MMA" => {
                self.exec.tensor_core = match value {
                    "hopper" => exec::TensorCore::Hopper,
                    "ampere" => exec::TensorCore::Ampere,
                    "float32" => exec::TensorCore::Float32,
                    _ => {
                        return Err(format!(
                            "{PREFIX}{name} is '{value}', but must be 'hopper', 'ampere' or 'float32'"
                        ));
                    }
                }
            }
            "STREAMS" => self.eager = choose(["eager", "lazy"])?,
            "MEMORY" => self.memory = Some(number(1)?),
            "ARCH" => self.arch = if choose(["90", "80"])? { 90 } else { 80 },
            "INSTRUCTION_LIMIT" => self.exec.instruction_limit = number(1)?,
            _ => {
                let known = NAMES.join(", ");
                return Err(format!("there is no option '{name}'; those that exist are {known}"));
            }
        }
        Ok(())
    }

    /// Device memory in bytes.
    pub fn memory_bytes(&self) -> u64 {
        self.memory.map_or_else(half_of_the_machine, |mebibytes| mebibytes.saturating_mul(1 << 20))
    }
}

/// Half of the machine's memory in whole MiB, 4 GiB where the machine does not say.
fn half_of_the_machine() -> u64 {
    let kibibytes = std::fs::read_to_string("/proc/meminfo").ok().and_then(|text| {
        let line = text.lines().find(|line| line.starts_with("MemTotal:"))?;
        line.split_whitespace().nth(1)?.parse::<u64>().ok()
    });
    kibibytes.map_or(4 << 30, |kibibytes| ((kibibytes / 2048).max(1)) << 20)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_known_and_a_bad_value_names_the_variable() {
        for name in NAMES {
            let error = Settings::default().set(name, "perhaps").unwrap_err();
            assert!(error.contains(&format!("{PREFIX}{name} is 'perhaps', but must be")), "{error}");
        }
        assert!(Settings::default().set("CHECK", "on").unwrap_err().contains("no option 'CHECK'"));
    }

    #[test]
    fn values_are_taken() {
        let mut settings = Settings::default();
        for (name, value) in [
            ("PRETEXT_EMULATED_CHECKS", "off"),
            ("WORKERS", "3"),
            ("SEED", "7"),
            ("COPIES", "late"),
            ("SCHEDULES", "all"),
            ("STREAMS", "eager"),
            ("MEMORY", "64"),
            ("ARCH", "80"),
            ("INSTRUCTION_LIMIT", "1000"),
        ] {
            settings.set(name, value).unwrap();
        }
        assert!(!settings.exec.checks && settings.exec.counters);
        assert_eq!((settings.exec.workers, settings.exec.seed), (3, Some(7)));
        assert!(settings.exec.late_copies && settings.exec.every_schedule && settings.eager);
        assert_eq!((settings.memory_bytes(), settings.arch), (64 << 20, 80));
        assert_eq!(settings.exec.instruction_limit, 1000);
        settings.set("SEED", "none").unwrap();
        assert_eq!(settings.exec.seed, None);
    }
}
