//! `pretext kernels profile`: typical sizes of every family; each launch with what it cost beside what it must cost.

use super::{cuda_device, families};
use crate::cli::KernelsProfile;
use crate::output::{Output, table};
use engine::cuda::DeviceInfo;
use engine::cuda::profile::{self, Record, report};
use engine::files::write_atomically;
use engine::{DType, Device, Error, ErrorKind, Result};
use kernels::registry::{FAMILIES, Family, Workload};
use serde_json::{Value, json};

/// Runs before the ones that are timed, and those.
const TIMED: (usize, usize) = (5, 30);

/// A launch of a workload.
struct Row {
    family: &'static str,
    /// The workload and its element type.
    what: String,
    record: Record,
}

/// Runs the command.
pub fn run(args: &KernelsProfile, output: &Output) -> Result<()> {
    let (families, entry) = selection(args.name.as_deref())?;
    let (device, info) = cuda_device(Some(&args.device))?;
    output.say(&format!("on {info}"));
    if !info.emulated {
        output.say("these sizes are small and stay in the device's cache: rates may be above the memory's");
    }
    let mut rows = Vec::new();
    for family in families {
        for workload in (family.workloads)() {
            for dtype in [DType::F32, DType::BF16] {
                let records = match records(&workload, device, dtype, info.emulated) {
                    Err(error) if is_not_there(&error) => continue,
                    records => {
                        records.map_err(|e| e.with("workload", workload.label).with("dtype", dtype))?
                    }
                };
                for record in records.into_iter().filter(|r| r.launch.kernel.starts_with(entry)) {
                    let what = format!("{} {dtype}", workload.label);
                    output.event(&event(family.name, &what, info, &record));
                    rows.push(Row { family: family.name, what, record });
                }
            }
        }
    }
    let columns = if info.emulated { counted } else { timed };
    let header = if info.emulated { &COUNTED[..] } else { &TIMES[..] };
    let mut last = "";
    let mut lines = Vec::new();
    for row in &rows {
        let mut line = columns(row, info);
        // A computation of several launches is named once.
        if row.what == last {
            line[0].clear();
        }
        last = &row.what;
        lines.push(line);
    }
    output.result(&table(header, &lines));
    if let Some(file) = &args.table {
        let text = markdown(&rows, header, columns, info);
        write_atomically(file, |out| out.write_all(text.as_bytes()))?;
        output.say(&format!("written to {}", file.display()));
    }
    Ok(())
}

/// The families to run, and what the entries must begin with.
fn selection(name: Option<&str>) -> Result<(Vec<&'static Family>, &str)> {
    let Some(name) = name else { return Ok((families(None)?, "")) };
    if FAMILIES.iter().any(|family| family.name == name) {
        return Ok((families(Some(name))?, ""));
    }
    let with_it = |family: &&Family| family.kernels().any(|kernel| kernel.entry.starts_with(name));
    let found: Vec<_> = FAMILIES.iter().filter(with_it).collect();
    match found.is_empty() {
        true => Err(Error::new(
            ErrorKind::Usage,
            "kernels profile",
            format!("'{name}' is neither a family nor the beginning of an entry: see pretext kernels list"),
        )),
        false => Ok((found, name)),
    }
}

/// Whether a workload is not there in this type, or on this device.
pub(super) fn is_not_there(error: &Error) -> bool {
    error.kind() == ErrorKind::DType || error.operation() == "workload"
}

/// The launches of a workload: on the emulated device those of one run, on hardware the means of many runs.
pub(super) fn records(
    workload: &Workload,
    device: Device,
    dtype: DType,
    emulated: bool,
) -> Result<Vec<Record>> {
    let mut once = (workload.prepare)(device, dtype)?;
    let (before, runs) = if emulated { (0, 1) } else { TIMED };
    (0..before).try_for_each(|_| once())?;
    profile::start()?;
    let outcome = (0..runs).try_for_each(|_| once());
    let all = profile::stop()?;
    outcome?;
    let launches = all.len() / runs;
    let mean = |i: usize| {
        let mut record = all[i].clone();
        let times = all.iter().skip(i).step_by(launches).map(|r| r.milliseconds);
        record.milliseconds = times.sum::<Option<f32>>().map(|sum| sum / runs as f32);
        record
    };
    Ok((0..launches).map(mean).collect())
}

fn event(family: &str, what: &str, device: &DeviceInfo, record: &Record) -> Value {
    let launch = &record.launch;
    let mut event = json!({
        "event": "launch", "family": family, "workload": what, "kernel": launch.kernel, "grid": launch.grid,
        "block": launch.block, "shared": launch.shared, "bytes": launch.bytes, "flops": launch.flops,
        "milliseconds": record.milliseconds, "device": device.name,
    });
    if let Some(counters) = &record.counters {
        event["counters"] = counters.all().into_iter().map(|(k, v)| (k.to_string(), json!(v))).collect();
    }
    event
}

/// A quotient, or a dash where there is nothing to divide.
fn ratio(a: u64, b: u64) -> String {
    if b == 0 { "-".into() } else { format!("{:.3}", a as f64 / b as f64) }
}

const COUNTED: [&str; 11] = [
    "workload",
    "kernel",
    "bytes",
    "moved/bytes",
    "reread",
    "sector use",
    "half-lines/bytes",
    "bank conflicts",
    "FLOPs",
    "instructions",
    "issue/memory",
];

/// Instructions of threads and bytes of memory that an H100 (SXM) deals with a second, by NVIDIA's data sheet: 66.9 TFLOP/s of
/// f32 are two an instruction.
const H100: [f64; 2] = [66.9e12 / 2.0, 3.35e12];

/// How long an H100 takes to issue a launch's instructions, over how long it takes to move its bytes.
fn issue_over_memory(instructions: u64, bytes: u64) -> String {
    match bytes {
        0 => "-".into(),
        _ => format!("{:.2}", instructions as f64 / H100[0] / (bytes as f64 / H100[1])),
    }
}

fn counted(row: &Row, _: &DeviceInfo) -> Vec<String> {
    let launch = &row.record.launch;
    let c = row.record.counters.unwrap_or_default();
    vec![
        row.what.clone(),
        launch.kernel.to_string(),
        launch.bytes.to_string(),
        ratio(c.unique_bytes(), launch.bytes),
        ratio(c.sector_bytes(), c.unique_bytes()),
        ratio(c.requested_bytes(), c.sector_bytes()),
        ratio(c.unique_half_line_bytes(), launch.bytes),
        ratio(c.bank_conflicts(), c.shared_waves),
        format!("{:.0}", launch.flops),
        c.thread_instructions.to_string(),
        issue_over_memory(c.thread_instructions, launch.bytes),
    ]
}

const TIMES: [&str; 7] = ["workload", "kernel", "us", "GB/s", "TFLOP/s", "% of roofline", "bytes"];

fn timed(row: &Row, device: &DeviceInfo) -> Vec<String> {
    let launch = &row.record.launch;
    let seconds = row.record.milliseconds.map(|ms| f64::from(ms) / 1e3).filter(|s| *s > 0.0);
    let peaks = report::peaks(device).zip(seconds);
    let cell = |value: Option<f64>, digits: usize| value.map_or("-".into(), |v| format!("{v:.digits$}"));
    vec![
        row.what.clone(),
        launch.kernel.to_string(),
        cell(seconds.map(|s| s * 1e6), 2),
        cell(seconds.map(|s| launch.bytes as f64 / s / 1e9), 0),
        cell(seconds.map(|s| launch.flops / s / 1e12), 2),
        cell(peaks.map(|(peaks, s)| 100.0 * peaks.least_seconds(launch) / s), 1),
        launch.bytes.to_string(),
    ]
}

/// The page that `--table` writes.
fn markdown(
    rows: &[Row],
    header: &[&str],
    columns: fn(&Row, &DeviceInfo) -> Vec<String>,
    device: &DeviceInfo,
) -> String {
    let mut text = format!(
        "# What each kernel costs\n\nMade by `pretext kernels profile --table FILE`, on {}. One run of each family's \
         workloads (`workloads.rs`).\n\n",
        device.name
    );
    if device.emulated {
        text.push_str(EXPLANATION);
    }
    let mut family = "";
    for row in rows {
        if row.family != family {
            family = row.family;
            text.push_str(&format!("\n## {family}\n\n| {} |\n", header.join(" | ")));
            text.push_str(&format!("|---|---|{}\n", "---:|".repeat(header.len() - 2)));
        }
        text.push_str(&format!("| {} |\n", columns(row, device).join(" | ")));
    }
    text
}

const EXPLANATION: &str = "\
These are counts of the emulated device, which do not depend on the machine; they are costs, not speed.

- `bytes`: what the launch must move at least, by the formula in its launcher.
- `moved/bytes`: different bytes of device memory that it read or wrote, over that: 1 where nothing is moved in vain.
- `reread`: the bytes of all 32-byte sectors that its requests (one a warp instruction) touch, over those different
  bytes: how often a byte is asked for. Caches serve the repeats. 1 where no byte is asked for twice and no sector in
  part.
- `sector use`: bytes that the requests use of their sectors, over those sectors' bytes; bytes that several lanes of a
  request share count once. 1 where each request uses its sectors wholly; 0.5 for every second float; 0.125 (4 bytes of
  32) where all lanes read the same float.
- `half-lines/bytes`: bytes of the different half-lines (64 bytes) that it read and of those that it wrote, over `bytes`: what
  the device's memory moves behind a perfect cache.
- `bank conflicts`: passes over the banks of shared memory that conflicts add, over all passes.
- `FLOPs`: by the launcher's formula. `instructions`: executed by threads.
- `issue/memory`: how long an H100 would take to issue these instructions over how long to move these bytes (33.5e12 a second
  and 3.35 TB/s, by its data sheet). Well below 1, memory is the limit; well above, arithmetic is.

In launches of a few kilobytes, which wait and neither compute nor move, a half-line that is used in part weighs much.
What depends on the data stays where the data put it. Rows of a window begin at any pixel (`copy_windows`): 8 floats at any
place touch 1.9 sectors in the mean, 8 bfloat16 1.4, so that with the sectors of the result 0.70 and 0.52 can be used.
Random look-ups in a table in shared memory meet in banks (`color_pixel_weights`). Rows that many indices name are summed by
launches of their own (`copy_scatter_hot`), and `copy_scatter_add` counts the bytes of all.
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_is_bound_by_memory_and_a_hundred_instructions_a_byte_are_not() {
        assert_eq!(issue_over_memory(2_621_440, 3_145_728), "0.08");
        assert_eq!(issue_over_memory(100, 1), "10.01");
        assert_eq!(issue_over_memory(100, 0), "-");
    }

    #[test]
    fn a_name_selects_a_family_or_entries() {
        let names =
            |name| selection(name).map(|(families, entry)| (families.len(), entry.to_string())).unwrap();
        assert_eq!(names(None), (FAMILIES.len(), String::new()));
        assert_eq!(names(Some("elementwise")), (1, String::new()));
        assert_eq!(names(Some("elementwise_gelu")), (1, "elementwise_gelu".into()));
        assert_eq!(selection(Some("nothing")).err().unwrap().kind(), ErrorKind::Usage);
    }
}
