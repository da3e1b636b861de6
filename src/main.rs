//! The command line: parses, runs, and turns errors into a message and an exit code.

use clap::Parser;
use clap::error::ErrorKind as ParseError;
use engine::ErrorKind;
use pretext::{cli::Cli, commands};
use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            let asked = matches!(error.kind(), ParseError::DisplayHelp | ParseError::DisplayVersion);
            return ExitCode::from(if asked { 0 } else { 2 });
        }
    };
    let outcome = commands::run(&cli);
    // A fault in a kernel makes this fail too, and is told below.
    let _ = engine::cuda::release();
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            use std::io::Write;
            let _ = writeln!(std::io::stderr().lock(), "error: {error}");
            ExitCode::from(if error.kind() == ErrorKind::Usage { 2 } else { 1 })
        }
    }
}
