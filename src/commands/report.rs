//! `pretext report`: one self-contained page about runs.

use crate::cli;
use crate::output::Output;
use crate::report::{self, Options, page};
use engine::Result;
use serde_json::json;

/// Runs the command.
pub fn run(args: &cli::Report, output: &Output) -> Result<()> {
    let device = crate::device::choose(&args.device)?;
    let options = Options { device, points: args.points.into(), table: !args.no_table };
    let text = report::page(&args.runs, &options, output)?;
    let path = match (&args.out, args.runs.as_slice()) {
        (Some(path), _) => path.clone(),
        (None, [run]) => run.join("report.html"),
        (None, _) => "report.html".into(),
    };
    page::write(&path, &text)?;
    output.event(&json!({"event": "report", "path": path, "bytes": text.len()}));
    output.say(&format!("report: {} ({:.2} MB)", path.display(), text.len() as f64 / 1e6));
    Ok(())
}
