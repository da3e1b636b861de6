//! What a recording says: a table a kernel, and a Chrome trace of the launches.

use super::super::DeviceInfo;
use super::{GRAPH, Launched, Record};
use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::{self, Write};

/// What a device can do at most, by its data sheet.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Peaks {
    /// Bytes a second of its memory.
    pub bandwidth: f64,
    /// FLOP/s of its tensor cores in bf16, without sparsity.
    pub bf16: f64,
    /// FLOP/s in float32.
    pub f32: f64,
}

impl Peaks {
    /// The time that a launch takes at least: its bytes at full bandwidth, or its FLOPs at the full rate of its type
    /// (float32 for entries that end in `_f32`, else tensor cores).
    pub fn least_seconds(&self, launch: &Launched) -> f64 {
        let arithmetic = if launch.kernel.ends_with("_f32") { self.f32 } else { self.bf16 };
        (launch.bytes as f64 / self.bandwidth).max(launch.flops / arithmetic)
    }
}

/// The devices that are known: what their names hold, the first that fits; terabytes and TFLOP/s.
const DEVICES: [(&[&str], [f64; 3]); 11] = [
    (&["GH200"], [4.0, 989.5, 66.9]),
    (&["H200", "NVL"], [4.8, 835.0, 60.0]),
    (&["H200"], [4.8, 989.5, 66.9]),
    (&["H100", "NVL"], [3.9, 835.0, 60.0]),
    (&["H100", "PCIe"], [2.0, 756.0, 51.2]),
    (&["H100"], [3.35, 989.5, 66.9]),
    (&["A100", "PCIE", "80GB"], [1.935, 312.0, 19.5]),
    (&["A100", "PCIe", "80GB"], [1.935, 312.0, 19.5]),
    (&["A100", "80GB"], [2.039, 312.0, 19.5]),
    (&["A100"], [1.555, 312.0, 19.5]),
    (&["A800", "80GB"], [2.039, 312.0, 19.5]),
];

/// The peaks of a device by its name; none where they are not known or it is emulated.
pub fn peaks(device: &DeviceInfo) -> Option<Peaks> {
    let fits = |parts: &[&str]| !device.emulated && parts.iter().all(|part| device.name.contains(part));
    let (_, numbers) = DEVICES.iter().find(|(parts, _)| fits(parts))?;
    let [bandwidth, bf16, f32] = numbers.map(|n| n * 1e12);
    Some(Peaks { bandwidth, bf16, f32 })
}

/// The sums over all launches of a kernel.
#[derive(Debug, Clone, Default, PartialEq)]
struct Sum {
    calls: u64,
    bytes: f64,
    flops: f64,
    /// Milliseconds, bytes and FLOPs of the launches that were timed.
    timed: (f64, f64, f64),
    /// Seconds that these take at least.
    least: f64,
    costs: [f64; 7],
}

/// Kernels with their sums, the most expensive first.
fn sums(records: &[Record], peaks: Option<Peaks>) -> Vec<(&'static str, Sum)> {
    let mut all: HashMap<&'static str, Sum> = HashMap::new();
    for record in records {
        let (sum, launch) = (all.entry(record.launch.kernel).or_default(), &record.launch);
        sum.calls += 1;
        sum.bytes += launch.bytes as f64;
        sum.flops += launch.flops;
        if let Some(time) = record.milliseconds {
            sum.timed.0 += f64::from(time);
            sum.timed.1 += launch.bytes as f64;
            sum.timed.2 += launch.flops;
            sum.least += peaks.map_or(0.0, |peaks| peaks.least_seconds(launch));
        }
        if let Some(c) = &record.counters {
            let costs = [
                c.unique_bytes(),
                c.sector_bytes(),
                c.half_line_bytes(),
                c.bank_conflicts(),
                c.shared_waves,
                c.thread_instructions,
                c.requested_bytes(),
            ];
            sum.costs.iter_mut().zip(costs).for_each(|(sum, cost)| *sum += cost as f64);
        }
    }
    let mut all: Vec<_> = all.into_iter().collect();
    let weight = |sum: &Sum| (sum.timed.0, sum.costs[5], sum.bytes);
    all.sort_by(|a, b| {
        weight(&b.1).partial_cmp(&weight(&a.1)).unwrap_or(std::cmp::Ordering::Equal).then(a.0.cmp(b.0))
    });
    all
}

/// A number or a dash.
fn cell(value: Option<f64>, digits: usize) -> String {
    value.filter(|v| v.is_finite()).map_or("-".into(), |v| format!("{v:.digits$}"))
}

/// One line a kernel. On hardware: calls, time, GB/s, TFLOP/s and per cent of the roofline, where the device's peaks
/// are known: the larger of bytes over bandwidth and FLOPs over arithmetic, over the time. On the emulated device no
/// times: the bytes and FLOPs of the formulas beside what was counted.
pub fn table(records: &[Record], device: &DeviceInfo) -> String {
    let header: &[&str] = match device.emulated {
        false => &["kernel", "calls", "ms", "% of time", "GB/s", "TFLOP/s", "% of roofline"],
        true => &[
            "kernel",
            "calls",
            "bytes",
            "moved/bytes",
            "sectors/moved",
            "sector use",
            "conflicts/pass",
            "instructions",
            "FLOPs",
        ],
    };
    let peaks = peaks(device);
    let sums = sums(records, peaks);
    let whole: f64 = sums.iter().filter(|(name, _)| *name != GRAPH).map(|(_, sum)| sum.timed.0).sum();
    let mut rows = vec![header.iter().map(|h| h.to_string()).collect::<Vec<_>>()];
    rows.extend(sums.iter().map(|(kernel, sum)| match device.emulated {
        false => measured(kernel, sum, whole, peaks.is_some()),
        true => counted(kernel, sum),
    }));
    aligned(&rows)
}

fn measured(kernel: &str, sum: &Sum, whole: f64, is_known: bool) -> Vec<String> {
    let (milliseconds, bytes, flops) = sum.timed;
    let seconds = milliseconds / 1e3;
    let timed = seconds > 0.0;
    vec![
        kernel.to_string(),
        sum.calls.to_string(),
        cell(timed.then_some(milliseconds), 3),
        cell((timed && kernel != GRAPH).then_some(100.0 * milliseconds / whole), 1),
        cell(timed.then_some(bytes / seconds / 1e9), 0),
        cell(timed.then_some(flops / seconds / 1e12), 2),
        cell((timed && is_known).then_some(100.0 * sum.least / seconds), 1),
    ]
}

fn counted(kernel: &str, sum: &Sum) -> Vec<String> {
    let [unique, sectors, _, conflicts, waves, instructions, requested] = sum.costs;
    vec![
        kernel.to_string(),
        sum.calls.to_string(),
        cell(Some(sum.bytes), 0),
        cell(Some(unique / sum.bytes), 3),
        cell(Some(sectors / unique), 3),
        cell(Some(requested / sectors), 3),
        cell(Some(conflicts / waves), 3),
        cell(Some(instructions), 0),
        cell(Some(sum.flops), 0),
    ]
}

/// The first column to the left, the others to the right.
fn aligned(rows: &[Vec<String>]) -> String {
    let columns = rows.first().map_or(0, Vec::len);
    let width = |i: usize| rows.iter().filter_map(|row| row.get(i)).map(String::len).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in rows {
        for (i, (cell, width)) in row.iter().zip(&widths).enumerate() {
            let _ = match i {
                0 => write!(text, "{cell:<width$}"),
                _ => write!(text, "  {cell:>width$}"),
            };
        }
        text.push('\n');
    }
    text
}

/// Writes a Chrome trace: a JSON array of complete events, for `chrome://tracing` or Perfetto. A process a device; its
/// rows are the host's time for putting each launch on the stream and, on hardware, the device's time for running it.
pub fn chrome_trace(records: &[Record], out: &mut dyn Write) -> io::Result<()> {
    out.write_all(b"[")?;
    let mut separator = "\n";
    for record in records {
        let host = Some((record.host.0, record.host.1, "host"));
        let device = record.start.zip(record.milliseconds).map(|(at, took)| (at, f64::from(took), "device"));
        for (at, took, row) in [host, device].into_iter().flatten() {
            write!(out, "{separator}{}", event(record, at, took, row))?;
            separator = ",\n";
        }
    }
    out.write_all(b"\n]\n")
}

/// One complete event; times are given in milliseconds and written in microseconds.
fn event(record: &Record, at: f64, took: f64, row: &str) -> String {
    let launch = &record.launch;
    let mut text = format!(
        "{{\"name\":\"{}\",\"cat\":\"{row}\",\"ph\":\"X\",\"ts\":{:.3},\"dur\":{:.3},\"pid\":{},\"tid\":\"{row}\",\"args\":{{\
         \"operation\":\"{}\",\"grid\":{:?},\"block\":{:?},\"shared\":{},\"bytes\":{},\"flops\":{}",
        escaped(launch.kernel),
        at * 1e3,
        took * 1e3,
        record.ordinal,
        escaped(launch.operation),
        launch.grid,
        launch.block,
        launch.shared,
        launch.bytes,
        launch.flops,
    );
    for (name, count) in record.counters.iter().flat_map(|counters| counters.all()) {
        let _ = write!(text, ",\"{name}\":{count}");
    }
    text.push_str("}}");
    text
}

/// For the inside of a JSON string.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            _ if c.is_control() => out.push(' '),
            _ => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::Counters;
    use super::*;

    fn device(name: &str, emulated: bool) -> DeviceInfo {
        DeviceInfo {
            name: name.into(),
            compute_capability: (9, 0),
            memory: 1,
            driver_version: (12, 8),
            emulated,
        }
    }

    fn record(kernel: &'static str, milliseconds: Option<f32>, counters: Option<Counters>) -> Record {
        let launch = Launched {
            kernel,
            operation: "op",
            grid: [1, 2, 3],
            block: [256, 1, 1],
            shared: 0,
            bytes: 3_350_000,
            flops: 1e6,
        };
        let start = milliseconds.map(|_| 2.0);
        Record { launch, ordinal: 0, host: (1.5, 0.25), start, milliseconds, counters }
    }

    #[test]
    fn devices_are_known_by_their_names() {
        let bandwidth = |name: &str| peaks(&device(name, false)).map(|peaks| peaks.bandwidth / 1e12);
        assert_eq!(bandwidth("NVIDIA H100 80GB HBM3"), Some(3.35));
        assert_eq!(bandwidth("NVIDIA H100 PCIe"), Some(2.0));
        assert_eq!(bandwidth("NVIDIA H200"), Some(4.8));
        assert_eq!(bandwidth("NVIDIA GH200 480GB"), Some(4.0));
        assert_eq!(bandwidth("NVIDIA A100-SXM4-80GB"), Some(2.039));
        assert_eq!(bandwidth("NVIDIA A100-SXM4-40GB"), Some(1.555));
        assert_eq!(bandwidth("NVIDIA GeForce RTX 4090"), None);
        assert_eq!(peaks(&device("H100", true)), None);
    }

    /// 2 x 3.35 MB in 2 x 2 us are half of 3.35 TB/s.
    #[test]
    fn times_become_rates() {
        let records = [record("a_bf16", Some(0.002), None), record("a_bf16", Some(0.002), None)];
        let text = table(&records, &device("NVIDIA H100 80GB HBM3", false));
        let cells: Vec<&str> = text.lines().nth(1).unwrap().split_whitespace().collect();
        assert_eq!(cells, ["a_bf16", "2", "0.004", "100.0", "1675", "0.50", "50.0"]);
        let unknown = table(&records, &device("other", false));
        assert!(unknown.lines().nth(1).unwrap().ends_with("-"), "{unknown}");
    }

    #[test]
    fn counters_stand_where_there_are_no_times() {
        let counters = Counters {
            unique_bytes_read: 3_000_000,
            unique_bytes_written: 350_000,
            global_load_sectors: 104_688,
            global_load_bytes: 1_675_008,
            shared_waves: 10,
            shared_waves_minimum: 5,
            ..Counters::default()
        };
        let text = table(&[record("a_f32", None, Some(counters))], &device("emulated", true));
        let cells: Vec<&str> = text.lines().nth(1).unwrap().split_whitespace().collect();
        assert_eq!(cells, ["a_f32", "1", "3350000", "1.000", "1.000", "0.500", "0.500", "0", "1000000"]);
        assert!(!text.contains("ms"), "{text}");
    }

    #[test]
    fn a_trace_has_complete_events() {
        let mut out = Vec::new();
        chrome_trace(
            &[record("a\"b", Some(0.5), None), record("c", None, Some(Counters::default()))],
            &mut out,
        )
        .unwrap();
        let text = String::from_utf8(out).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!((lines[0], lines[4], lines.len()), ("[", "]", 5));
        assert!(
            lines[1].contains("\"name\":\"a\\\"b\"") && lines[1].contains("\"ts\":1500.000,\"dur\":250.000")
        );
        assert!(lines[2].contains("\"ts\":2000.000,\"dur\":500.000") && lines[2].ends_with("}},"), "{text}");
        assert!(lines[3].contains("\"thread_instructions\":0") && lines[3].ends_with("}}"), "{text}");
    }
}
