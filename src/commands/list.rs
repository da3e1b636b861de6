//! `pretext methods`, `archs`, `datasets`: what there is, one a line.

use crate::output::Output;
use data::Availability;
use engine::Result;
use serde_json::json;

fn line(output: &Output, kind: &str, name: &str, text: &str) {
    output.event(&json!({"event": kind, "name": name, "description": text}));
    output.result(&format!("{name:<18} {text}"));
}

/// `pretext methods`.
pub fn methods(output: &Output) -> Result<()> {
    for m in objectives::METHODS {
        line(output, "method", m.name, &format!("{} ({})", m.summary, m.reference));
    }
    Ok(())
}

/// `pretext archs`.
pub fn archs(output: &Output) -> Result<()> {
    for a in models::ARCHS {
        line(output, "arch", a.name, a.description);
    }
    Ok(())
}

/// `pretext datasets`.
pub fn datasets(output: &Output) -> Result<()> {
    for s in data::SOURCES {
        let there = match (s.probe)(None) {
            Availability::Here(place) => format!("here: {place}"),
            Availability::Missing(how) => format!("not here: {how}"),
            Availability::NeedsFolder => "in the folder that you name".into(),
        };
        line(output, "dataset", s.spec, &format!("{} [{there}]", s.description));
    }
    Ok(())
}
