//! What training costs: seconds and, where the processor counts it, energy (`cost.json` in a run's folder).

use super::{Ended, Machine, Task, checkpoint};
use crate::output::Output;
use engine::files::write_atomically;
use engine::{Error, Result};
use objectives::Objective;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// What some steps of a run have cost.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Cost {
    /// The steps.
    pub steps: u64,
    /// Wall-clock time, measurements on the way included.
    pub seconds: f64,
    /// Energy of the processor packages, of all that ran on them; none where the machine does not tell.
    pub joules: Option<f64>,
    /// Whether a part was lost when the process was killed, and is counted at the rate of the rest.
    pub estimated: bool,
}

impl Cost {
    /// The cost that a run's folder holds, if it does.
    pub fn read(path: &Path) -> Result<Option<Cost>> {
        match std::fs::read_to_string(path) {
            Ok(text) => {
                serde_json::from_str(&text).map(Some).map_err(|e| Error::format("read cost", path, e))
            }
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(Error::io("read cost", path, e)),
        }
    }

    fn write(&self, path: &Path) -> Result<()> {
        let text = serde_json::to_string(self).map_err(|e| Error::format("write cost", path, e))?;
        write_atomically(path, |out| writeln!(out, "{text}"))
    }

    /// The whole cost of a run of which `before` steps were taken by earlier processes, that left `earlier`, and the others
    /// cost this much.
    fn after(self, before: u64, earlier: Option<Cost>) -> Cost {
        match earlier {
            _ if before == 0 => self,
            Some(earlier) if self.steps == 0 => earlier,
            Some(earlier) if earlier.steps == before => Cost {
                steps: before + self.steps,
                seconds: earlier.seconds + self.seconds,
                joules: earlier.joules.zip(self.joules).map(|(a, b)| a + b),
                estimated: earlier.estimated,
            },
            _ => {
                let factor = (before + self.steps) as f64 / self.steps.max(1) as f64;
                Cost {
                    steps: before + self.steps,
                    seconds: self.seconds * factor,
                    joules: self.joules.map(|joules| joules * factor),
                    estimated: true,
                }
            }
        }
    }
}

/// Trains as [`super::run`] does, and keeps what it costs in the run's folder.
pub fn run(
    objective: &mut dyn Objective,
    task: &Task,
    machine: Machine,
    output: &Output,
) -> Result<(Ended, Cost)> {
    let (checkpoint, path) = (task.folder.checkpoint_path(), task.folder.cost_path());
    let before = if task.resume { checkpoint::steps(&checkpoint)? } else { 0 };
    let earlier = if task.resume { Cost::read(&path)? } else { None };
    let meter = Meter::start();
    let ended = super::run(objective, task, machine, output)?;
    let (seconds, joules) = meter.stop();
    let steps = checkpoint::steps(&checkpoint)?.saturating_sub(before);
    let cost = Cost { steps, seconds, joules, estimated: false }.after(before, earlier);
    cost.write(&path)?;
    Ok((ended, cost))
}

/// Where Linux shows the energy counters of processor packages (powercap, RAPL).
const POWERCAP: &str = "/sys/class/powercap";
/// Seconds between looks at the counters: they start again from 0 after some minutes under load.
const EVERY: Duration = Duration::from_secs(20);

/// Measures time and energy from its start on.
pub struct Meter {
    begun: Instant,
    energy: Option<(Sender<()>, JoinHandle<Option<f64>>)>,
}

impl Meter {
    /// Starts measuring.
    pub fn start() -> Meter {
        Meter::reading(Path::new(POWERCAP), EVERY)
    }

    fn reading(folder: &Path, every: Duration) -> Meter {
        let counters = Counters::open(folder);
        let energy = counters.map(|mut counters| {
            let (sender, stopped) = channel();
            let watch = std::thread::spawn(move || {
                loop {
                    let ended = stopped.recv_timeout(every) != Err(RecvTimeoutError::Timeout);
                    counters.look()?;
                    if ended {
                        return Some(counters.joules);
                    }
                }
            });
            (sender, watch)
        });
        Meter { begun: Instant::now(), energy }
    }

    /// Seconds since the start, and joules if they are known.
    pub fn stop(self) -> (f64, Option<f64>) {
        let seconds = self.begun.elapsed().as_secs_f64();
        let joules = self.energy.and_then(|(sender, watch)| {
            drop(sender);
            watch.join().ok().flatten()
        });
        (seconds, joules)
    }
}

/// The counters of all packages.
struct Counters {
    packages: Vec<Package>,
    joules: f64,
}

/// A counter of microjoules that starts again from 0 behind its range.
struct Package {
    path: PathBuf,
    range: u64,
    last: u64,
}

fn number(path: &Path) -> Option<u64> {
    std::fs::read_to_string(path).ok()?.trim().parse().ok()
}

impl Counters {
    /// None where there is no package whose counter can be read.
    fn open(folder: &Path) -> Option<Counters> {
        let mut packages = Vec::new();
        for entry in std::fs::read_dir(folder).ok()?.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            // intel-rapl:0 is a package (of AMD's processors, too), intel-rapl:0:1 a part of one.
            if name.starts_with("intel-rapl:") && name.matches(':').count() == 1 {
                let path = entry.path().join("energy_uj");
                packages.push(Package {
                    last: number(&path)?,
                    range: number(&entry.path().join("max_energy_range_uj"))?,
                    path,
                });
            }
        }
        (!packages.is_empty()).then_some(Counters { packages, joules: 0.0 })
    }

    /// Adds what was used since the last look.
    fn look(&mut self) -> Option<()> {
        for package in &mut self.packages {
            let now = number(&package.path)?;
            let used =
                if now >= package.last { now - package.last } else { now + package.range - package.last };
            self.joules += used as f64 * 1e-6;
            package.last = now;
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_are_counted_once_and_over_the_end_of_their_range() {
        let folder = tempfile::tempdir().unwrap();
        let set = |zone: &str, energy: u64| {
            let zone = folder.path().join(zone);
            std::fs::create_dir_all(&zone).unwrap();
            std::fs::write(zone.join("energy_uj"), format!("{energy}\n")).unwrap();
            std::fs::write(zone.join("max_energy_range_uj"), "10000000\n").unwrap();
        };
        set("intel-rapl:0", 9_000_000);
        set("intel-rapl:1", 1_000_000);
        set("intel-rapl:0:0", 0);
        let mut counters = Counters::open(folder.path()).unwrap();
        set("intel-rapl:0", 500_000);
        set("intel-rapl:1", 3_000_000);
        set("intel-rapl:0:0", 9_000_000);
        counters.look().unwrap();
        assert!((counters.joules - 3.5).abs() < 1e-9);
        let meter = Meter::reading(folder.path(), EVERY);
        set("intel-rapl:1", 3_250_000);
        let joules = meter.stop().1.unwrap();
        assert!((joules - 0.25).abs() < 1e-9);
        assert!(Counters::open(&folder.path().join("none")).is_none());
        std::fs::remove_file(folder.path().join("intel-rapl:1/energy_uj")).unwrap();
        assert!(Counters::open(folder.path()).is_none(), "a part of the energy is no answer");
    }

    #[test]
    fn costs_of_parts_add_up() {
        let cost = |steps, seconds| Cost { steps, seconds, joules: Some(2.0 * seconds), estimated: false };
        assert_eq!(cost(10, 5.0).after(0, Some(cost(3, 1.0))), cost(10, 5.0));
        assert_eq!(cost(10, 5.0).after(4, Some(cost(4, 1.0))), cost(14, 6.0));
        let killed = cost(10, 5.0).after(10, Some(cost(4, 1.0)));
        assert_eq!(killed, Cost { estimated: true, ..cost(20, 10.0) });
        assert_eq!(cost(0, 0.1).after(14, Some(cost(14, 6.0))), cost(14, 6.0));
    }
}
