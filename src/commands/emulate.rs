//! `pretext emulate -- PROGRAM`: runs a program that uses the CUDA driver on the emulated device.
//!
//! The program finds the emulated `libcuda.so` first on its library path; nothing of it is changed. Options reach the
//! device through the environment. The program takes this process's place: signals and exit code are its own.

use crate::cli::Emulate;
use engine::{Error, ErrorKind, Result};
use std::ffi::{OsStr, OsString};
use std::io;
use std::process::Command;

/// Where the loader looks first.
const LIBRARY_PATH: &str = "LD_LIBRARY_PATH";

/// Runs the command. Returns only if the program cannot be started.
pub fn run(args: &Emulate) -> Result<()> {
    let operation = "emulate";
    let [program, arguments @ ..] = args.program.as_slice() else {
        return Err(Error::new(ErrorKind::Usage, operation, "name a program after --"));
    };
    let folder =
        emulator::library::folder().map_err(|e| Error::new(ErrorKind::Device, operation, e.to_string()))?;
    let mut command = Command::new(program);
    command
        .args(arguments)
        .env(LIBRARY_PATH, prepend(folder.into_os_string(), std::env::var_os(LIBRARY_PATH)));
    command.envs(settings(args));
    let error = replace(&mut command);
    let name = program.to_string_lossy();
    let reason = match error.kind() {
        io::ErrorKind::NotFound if name.contains('/') => format!("there is no program {name}"),
        io::ErrorKind::NotFound => {
            format!("there is no program {name} on PATH; one in this folder is ./{name}")
        }
        _ => format!("{name} cannot be run: {error}"),
    };
    Err(Error::new(ErrorKind::Io, operation, reason))
}

/// `folder`, then what was there.
fn prepend(folder: OsString, rest: Option<OsString>) -> OsString {
    let mut list = folder;
    if let Some(rest) = rest.filter(|rest| !rest.is_empty()) {
        list.push(OsStr::new(":"));
        list.push(rest);
    }
    list
}

/// The device's environment variables. What is not given stays as it is there already.
fn settings(args: &Emulate) -> impl Iterator<Item = (&'static str, String)> {
    [
        ("PRETEXT_EMULATED_SEED", args.seed.map(|n| n.to_string())),
        ("PRETEXT_EMULATED_SCHEDULES", args.schedules.clone()),
        ("PRETEXT_EMULATED_COPIES", args.copies.clone()),
        ("PRETEXT_EMULATED_CHECKS", args.checks.clone()),
        ("PRETEXT_EMULATED_STREAMS", args.streams.clone()),
        ("PRETEXT_EMULATED_ARCH", args.arch.clone()),
        ("PRETEXT_EMULATED_MEMORY", args.memory.map(|n| n.to_string())),
        ("PRETEXT_EMULATED_MMA", args.mma.clone()),
        ("PRETEXT_EMULATED_WORKERS", args.workers.map(|n| n.to_string())),
    ]
    .into_iter()
    .filter_map(|(name, value)| value.map(|value| (name, value)))
}

/// Makes this process the program; gives the reason if that fails.
#[cfg(unix)]
fn replace(command: &mut Command) -> io::Error {
    std::os::unix::process::CommandExt::exec(command)
}

/// The emulated driver does not exist here, so that [`run`] ends before.
#[cfg(not(unix))]
fn replace(_: &mut Command) -> io::Error {
    io::ErrorKind::Unsupported.into()
}
