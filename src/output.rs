//! What the program says: results on stdout, messages on stderr, JSON lines for scripts.
//!
//! A closed pipe is not an error: whoever reads has seen enough.

use serde_json::Value;
use std::io::{IsTerminal, Write};

/// Where and how to speak.
#[derive(Debug, Clone, Copy)]
pub struct Output {
    /// One JSON object a line on stdout instead of text.
    pub json: bool,
}

impl Output {
    /// An event for scripts: printed under `--json`, nothing otherwise.
    pub fn event(&self, event: &Value) {
        if self.json {
            let _ = writeln!(std::io::stdout().lock(), "{event}");
        }
    }

    /// Text that is the command's result: stdout, or nothing under `--json`, where events carry it.
    pub fn result(&self, text: &str) {
        if !self.json {
            let _ = writeln!(std::io::stdout().lock(), "{text}");
        }
    }

    /// A message for a person: stderr.
    pub fn say(&self, text: &str) {
        let _ = writeln!(std::io::stderr().lock(), "{text}");
    }

    /// Whether a person watches: progress bars make sense.
    pub fn is_interactive(&self) -> bool {
        std::io::stderr().is_terminal()
    }
}

/// A table in plain text: the first column left-aligned, the others right.
pub fn table(header: &[&str], rows: &[Vec<String>]) -> String {
    let columns = header.len();
    let mut width: Vec<usize> = header.iter().map(|h| h.chars().count()).collect();
    for row in rows {
        for (w, cell) in width.iter_mut().zip(row) {
            *w = (*w).max(cell.chars().count());
        }
    }
    let line = |cells: &[String]| {
        let parts: Vec<String> = (0..columns)
            .map(|i| {
                let cell = cells.get(i).map_or("", String::as_str);
                if i == 0 { format!("{cell:<w$}", w = width[i]) } else { format!("{cell:>w$}", w = width[i]) }
            })
            .collect();
        parts.join("  ").trim_end().to_string()
    };
    let head: Vec<String> = header.iter().map(|h| h.to_string()).collect();
    let rule = "-".repeat(width.iter().sum::<usize>() + 2 * columns.saturating_sub(1));
    let mut lines = vec![line(&head), rule];
    lines.extend(rows.iter().map(|r| line(r)));
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    #[test]
    fn columns_line_up() {
        let rows = vec![vec!["raw".into(), "84.5".into()], vec!["longer".into(), "7".into()]];
        assert_eq!(
            super::table(&["what", "top1"], &rows),
            "what    top1\n------------\nraw     84.5\nlonger     7"
        );
    }
}
