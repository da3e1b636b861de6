//! What the emulated device counts of a launch, read from the lines of JSON that it gives.

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// What a launch cost on the emulated device: numbers that do not depend on the machine, costs and not speed. See
        /// `emulator/src/counters.rs` for what exactly is counted.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
        pub struct Counters {
            $($(#[$doc])* pub $name: u64,)*
        }

        impl Counters {
            /// Every counter by its name.
            pub fn all(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($name), self.$name)),*]
            }

            /// From a line of flat JSON; a counter that is not there is 0.
            fn parse(line: &str) -> Counters {
                Counters { $($name: number(line, concat!("\"", stringify!($name), "\":")),)* }
            }
        }
    };
}

counters! {
    /// Warp instructions: integer, logic, moves, conversions.
    integer,
    /// Warp instructions: float32 and float64.
    float,
    /// Warp instructions: f16 and bf16.
    half,
    /// Warp instructions: the special function unit.
    special,
    /// Warp instructions: `mma`.
    tensor,
    /// Warp instructions: global memory.
    global,
    /// Warp instructions: shared memory.
    shared,
    /// Warp instructions: local memory.
    local,
    /// Warp instructions: constant memory and parameters.
    constant,
    /// Warp instructions: shuffles, votes.
    warp,
    /// Warp instructions: barriers, fences.
    barrier,
    /// Warp instructions: branches.
    control,
    /// Thread instructions in all.
    thread_instructions,
    /// Warp instructions in all.
    warp_instructions,
    /// Global load requests.
    global_load_requests,
    /// 32-byte sectors that loads touch, each request's counted apart.
    global_load_sectors,
    /// 64-byte half-lines that loads touch.
    global_load_half_lines,
    /// Different bytes that loads touch, each request's counted apart.
    global_load_bytes,
    /// Global store requests.
    global_store_requests,
    /// 32-byte sectors that stores touch.
    global_store_sectors,
    /// 64-byte half-lines that stores touch.
    global_store_half_lines,
    /// Different bytes that stores touch, each request's counted apart.
    global_store_bytes,
    /// Of the bytes that loads and stores touch, those of requests whose lanes take 16 bytes each.
    global_wide_bytes,
    /// Different bytes of global memory read.
    unique_bytes_read,
    /// Different bytes of global memory written.
    unique_bytes_written,
    /// Different half-lines (64 bytes) of which any byte was read.
    unique_half_lines_read,
    /// Different half-lines of which any byte was written.
    unique_half_lines_written,
    /// Shared memory requests.
    shared_requests,
    /// Passes over the shared banks.
    shared_waves,
    /// Passes that would be needed without bank conflicts.
    shared_waves_minimum,
    /// Branches that divided a warp.
    divergent_branches,
    /// Block barriers.
    barriers,
}

/// The digits behind `key`.
fn number(line: &str, key: &str) -> u64 {
    let Some(at) = line.find(key) else { return 0 };
    let rest = &line[at + key.len()..];
    let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    rest[..end].parse().unwrap_or(0)
}

impl Counters {
    /// Different bytes read and different bytes written: what a device with a perfect cache moves.
    pub fn unique_bytes(&self) -> u64 {
        self.unique_bytes_read + self.unique_bytes_written
    }

    /// Bytes of the different half-lines that were read and of those that were written: what memory moves behind a perfect
    /// cache.
    pub fn unique_half_line_bytes(&self) -> u64 {
        64 * (self.unique_half_lines_read + self.unique_half_lines_written)
    }

    /// Bytes of all sectors that requests touch: the traffic between the multiprocessors and the cache.
    pub fn sector_bytes(&self) -> u64 {
        32 * (self.global_load_sectors + self.global_store_sectors)
    }

    /// Bytes that requests touch, each request's counted apart: what they use of their sectors.
    pub fn requested_bytes(&self) -> u64 {
        self.global_load_bytes + self.global_store_bytes
    }

    /// Bytes of all half-lines that requests touch.
    pub fn half_line_bytes(&self) -> u64 {
        64 * (self.global_load_half_lines + self.global_store_half_lines)
    }

    /// Passes over the shared banks beyond what is needed.
    pub fn bank_conflicts(&self) -> u64 {
        self.shared_waves.saturating_sub(self.shared_waves_minimum)
    }
}

/// The lines of counters of the launches that ran, in their order, to be given to the launches as they were recorded.
pub(super) struct Lines<'a> {
    lines: Vec<&'a str>,
    next: usize,
}

impl<'a> Lines<'a> {
    pub(super) fn new(text: &'a str) -> Lines<'a> {
        Lines { lines: text.lines().collect(), next: 0 }
    }

    /// The counters of the next launch of a kernel. Lines of launches that were not recorded are passed over.
    pub(super) fn of(&mut self, kernel: &str) -> Option<Counters> {
        let key = format!("\"kernel\":\"{kernel}\"");
        let found = self.lines[self.next..].iter().position(|line| line.contains(&key))?;
        let line = self.lines[self.next + found];
        self.next += found + 1;
        Some(Counters::parse(line))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_paired_in_order() {
        let text = "{\"kernel\":\"a\",\"integer\":7,\"shared\":1,\"shared_waves\":12}\n\
                    {\"kernel\":\"other\",\"integer\":1}\n\
                    {\"kernel\":\"b\",\"integer\":8,\"barriers\":3}\n{\"kernel\":\"a\",\"integer\":9}\n";
        let mut lines = Lines::new(text);
        let a = lines.of("a").unwrap();
        assert_eq!((a.integer, a.shared, a.shared_waves, a.barriers), (7, 1, 12, 0));
        assert_eq!(lines.of("missing"), None);
        assert_eq!(lines.of("b").unwrap(), Counters { integer: 8, barriers: 3, ..Counters::default() });
        assert_eq!(lines.of("a").unwrap().integer, 9);
        assert_eq!(lines.of("a"), None);
    }
}
