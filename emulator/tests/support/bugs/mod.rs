//! The list of planted bugs.

mod barriers;
mod copies;
mod launches;
mod memory;

use crate::support::Case;
use emulator::report::Kind;

/// A bug to plant.
pub struct Bug {
    /// What the bug is.
    pub name: &'static str,
    /// The kernel's file.
    pub file: &'static str,
    /// The entry to launch.
    pub entry: &'static str,
    /// The case to launch it on.
    pub shape: &'static str,
    /// Texts, each of which occurs once, and what they become.
    pub edits: &'static [(&'static str, &'static str)],
    /// Where the report may be: texts, each of which then is in one line only, the first of a statement; beside these,
    /// lines that an edit marks with the comment `BUG`.
    pub at: &'static [&'static str],
    /// What may be reported.
    pub kinds: &'static [Kind],
    /// A change of the launch.
    pub alter: Option<fn(&mut Case)>,
    /// A lower limit of instructions, for kernels that never end.
    pub instruction_limit: Option<u64>,
}

impl Bug {
    /// A bug in a source.
    const fn new(
        name: &'static str,
        [file, entry, shape]: [&'static str; 3],
        kinds: &'static [Kind],
        edits: &'static [(&'static str, &'static str)],
        at: &'static [&'static str],
    ) -> Bug {
        Bug { name, file, entry, shape, edits, at, kinds, alter: None, instruction_limit: None }
    }

    /// Changes the launch too.
    const fn alter(mut self, alter: fn(&mut Case)) -> Bug {
        self.alter = Some(alter);
        self
    }

    /// Never ends.
    const fn endless(mut self) -> Bug {
        self.instruction_limit = Some(200_000);
        self
    }
}

/// Every planted bug.
pub fn bugs() -> Vec<Bug> {
    barriers::bugs().into_iter().chain(copies::bugs()).chain(launches::bugs()).chain(memory::bugs()).collect()
}
