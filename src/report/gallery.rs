//! Nearest neighbours of some images, and of those that are classified wrongly most often.

use super::html::Html;
use super::image::Picture;
use super::space::{Side, Space};
use engine::Result;

/// Neighbours shown.
const NEIGHBOURS: usize = 5;
/// Queries shown, one a class.
const QUERIES: usize = 10;
/// Classes shown of those that fail most, and failures of each.
const WORST: usize = 3;
const FAILURES: usize = 3;
/// Rows of the table of classes.
const CLASSES: usize = 20;
/// Pixels of the longer side of an image.
const SIDE: usize = 48;

/// A query or a neighbour as it is shown.
struct Shown {
    address: String,
    label: Option<i32>,
    /// Cosine with the query.
    cosine: Option<f32>,
}

/// A query, its neighbours, and the class that they vote for.
struct Row {
    query: Shown,
    neighbours: Vec<Shown>,
    predicted: Option<i32>,
}

/// How a class does.
struct Class {
    label: i32,
    images: usize,
    right: usize,
    /// What it is taken for most often, and how often.
    taken_for: Option<(i32, usize)>,
}

/// Everything that is shown.
pub struct Gallery {
    rows: Vec<Row>,
    /// Worst first; empty without labels.
    classes: Vec<Class>,
    failures: Vec<(i32, Vec<Row>)>,
}

impl Gallery {
    /// Looks for neighbours and failures.
    pub fn new(space: &Space) -> Result<Gallery> {
        let predicted = space.predictions()?;
        let row = |i: usize| -> Result<Row> {
            let found = space.neighbours(i, NEIGHBOURS)?;
            let near = found.into_iter().map(|(j, cosine)| shown(&space.bank, j, Some(cosine)));
            Ok(Row {
                query: shown(&space.queries, i, None)?,
                neighbours: near.collect::<Result<_>>()?,
                predicted: predicted.as_ref().map(|p| p[i]),
            })
        };
        let (mut classes, mut failures) = (Vec::new(), Vec::new());
        let n = space.queries.len();
        let chosen: Vec<usize> = match (&space.queries.labels, &predicted) {
            (Some(labels), Some(predicted)) => {
                classes = count(labels, predicted);
                for class in classes.iter().filter(|c| c.right < c.images).take(WORST) {
                    let wrong = (0..n).filter(|&i| labels[i] == class.label && predicted[i] != class.label);
                    failures.push((class.label, wrong.take(FAILURES).map(row).collect::<Result<_>>()?));
                }
                let mut names: Vec<i32> = classes.iter().map(|c| c.label).collect();
                names.sort_unstable();
                let few = names.len().min(QUERIES);
                let some = (0..few).map(|i| names[i * names.len() / few]);
                some.filter_map(|class| labels.iter().position(|l| *l == class)).collect()
            }
            _ => (0..QUERIES.min(n)).map(|i| i * n / QUERIES.min(n)).collect(),
        };
        Ok(Gallery { rows: chosen.into_iter().map(row).collect::<Result<_>>()?, classes, failures })
    }

    /// Writes the gallery.
    pub fn draw(&self, h: &mut Html, space: &Space) {
        let asks = if space.tested { "test images" } else { "training images that are left out of the bank" };
        let first = match self.classes.is_empty() {
            true => "evenly spread",
            false => "the first of each class",
        };
        h.note(&format!(
            "Queries are {asks}, {first}, not chosen by how they do. Their neighbours are the {NEIGHBOURS} of {} training images \
             whose features have the largest cosine with theirs.",
            space.bank.len()
        ));
        if self.classes.is_empty() {
            h.missing("There are no labels: whether a neighbour is of the query's kind cannot be said.");
        }
        self.rows.iter().for_each(|row| row.draw(h, space));
        if self.classes.is_empty() {
            return;
        }
        h.leaf("h4", &[], "Where neighbours fail most");
        let cell = |c: &Class| {
            let taken = c.taken_for.map_or("-".into(), |(l, n)| format!("{} ({n})", space.class(l)));
            let right = format!("{:.1}", 100.0 * c.right as f64 / c.images as f64);
            vec![space.class(c.label), c.images.to_string(), right, taken]
        };
        let rows: Vec<Vec<String>> = self.classes.iter().take(CLASSES).map(cell).collect();
        let caption = format!(
            "kNN by class, worst first: {} {asks}, a bank of {}{}",
            space.queries.len(),
            space.bank.len(),
            if self.classes.len() > CLASSES {
                format!("; {CLASSES} of {} classes", self.classes.len())
            } else {
                String::new()
            }
        );
        h.table(&caption, &["class", "images", "right, %", "most often taken for"], &rows);
        for (label, rows) in &self.failures {
            h.leaf("h5", &[], &format!("{}: wrong", space.class(*label)));
            rows.iter().for_each(|row| row.draw(h, space));
        }
        if self.failures.is_empty() {
            h.note("Every query is classified rightly.");
        }
    }
}

fn shown(side: &Side, i: usize, cosine: Option<f32>) -> Result<Shown> {
    let picture = Picture::of(&side.images.image(i)?).at_most(SIDE)?;
    Ok(Shown { address: picture.address()?, label: side.label(i), cosine })
}

/// How each class does, worst first.
fn count(labels: &[i32], predicted: &[i32]) -> Vec<Class> {
    let mut names: Vec<i32> = labels.to_vec();
    names.sort_unstable();
    names.dedup();
    let mut classes: Vec<Class> = names
        .into_iter()
        .map(|label| {
            let of = || labels.iter().zip(predicted).filter(|(l, _)| **l == label).map(|(_, p)| *p);
            let mut wrong: Vec<i32> = of().filter(|p| *p != label).collect();
            wrong.sort_unstable();
            let times = |p: i32| wrong.iter().filter(|w| **w == p).count();
            let taken_for =
                wrong.iter().map(|p| (*p, times(*p))).max_by(|a, b| a.1.cmp(&b.1).then(b.0.cmp(&a.0)));
            Class { label, images: of().count(), right: of().count() - wrong.len(), taken_for }
        })
        .collect();
    let part = |c: &Class| c.right as f64 / c.images as f64;
    classes.sort_by(|a, b| part(a).total_cmp(&part(b)).then(a.label.cmp(&b.label)));
    classes
}

impl Row {
    fn draw(&self, h: &mut Html, space: &Space) {
        h.element("div", &[("class", "strip")], |h| {
            let name = self.query.label.map_or("query".into(), |l| space.class(l));
            let vote = self.predicted.map(|p| match Some(p) == self.query.label {
                true => format!("\u{2713} voted {}", space.class(p)),
                false => format!("\u{2717} voted {}", space.class(p)),
            });
            tile(
                h,
                "query",
                &self.query.address,
                &format!("query: {name}"),
                &[name.clone(), vote.unwrap_or_default()],
            );
            for near in &self.neighbours {
                let cosine = near.cosine.map_or(String::new(), |c| format!("cos {c:.3}"));
                let (class, mark) = match (near.label, self.query.label) {
                    (Some(a), Some(b)) if a == b => ("right", "\u{2713} "),
                    (Some(_), Some(_)) => ("wrong", "\u{2717} "),
                    _ => ("unknown", ""),
                };
                let label = near.label.map_or(String::new(), |l| space.class(l));
                let said = format!("neighbour, {cosine}{}{label}", if label.is_empty() { "" } else { ", " });
                tile(h, class, &near.address, &said, &[format!("{mark}{label}"), cosine]);
            }
        });
    }
}

fn tile(h: &mut Html, class: &str, address: &str, alt: &str, lines: &[String]) {
    h.element("figure", &[("class", &format!("tile {class}"))], |h| {
        h.void("img", &[("src", address), ("alt", alt)]);
        h.element("figcaption", &[], |h| {
            lines.iter().filter(|l| !l.trim().is_empty()).for_each(|l| h.leaf("span", &[], l));
        });
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_stand_worst_first_with_what_they_are_taken_for() {
        let found = count(&[0, 0, 0, 1, 1, 2], &[0, 1, 2, 1, 1, 0]);
        let seen: Vec<_> = found.iter().map(|c| (c.label, c.images, c.right, c.taken_for)).collect();
        assert_eq!(seen, [(2, 1, 0, Some((0, 1))), (0, 3, 1, Some((1, 1))), (1, 2, 2, None)]);
    }
}
