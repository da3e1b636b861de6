//! Curves as inline SVG: axes with round numbers and units, a line a run told apart by colour and dashes, a legend with each
//! line's figures, and the values themselves in an attribute, from which the page's script shows the nearest one.

use super::html::Html;
use serde_json::json;

/// Points a line has at most.
const POINTS: usize = 300;
/// Width and height of the drawing, and the margins of the axes: left, right, top, bottom.
const SIZE: [f64; 2] = [480.0, 240.0];
const MARGIN: [f64; 4] = [68.0, 12.0, 10.0, 40.0];
/// The axis is logarithmic where the greatest value is so many times the least.
const LOGARITHMIC: f64 = 200.0;

/// One line of a chart.
#[derive(Debug, Clone)]
pub struct Line {
    /// Its name in the legend.
    pub name: String,
    /// Which of the page's colours and dashes it has.
    pub style: usize,
    /// Step and value, steps rising.
    pub points: Vec<(u64, f64)>,
}

/// A chart.
#[derive(Debug, Clone)]
pub struct Chart {
    /// Its `id` in the page, unique.
    pub id: String,
    /// What is shown.
    pub title: String,
    /// What the vertical axis counts, with its unit.
    pub unit: String,
    /// What a reader should know, if anything.
    pub note: String,
    /// The lines; those without a point are left out.
    pub lines: Vec<Line>,
}

/// A point of a thinned line: the mean of some steps, and their least and greatest value.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Thinned {
    step: f64,
    mean: f64,
    least: f64,
    greatest: f64,
}

/// At most [`POINTS`] points: means of equally many steps.
fn thin(points: &[(u64, f64)]) -> (usize, Vec<Thinned>) {
    let each = points.len().div_ceil(POINTS).max(1);
    let group = |g: &[(u64, f64)]| Thinned {
        step: g.iter().map(|p| p.0 as f64).sum::<f64>() / g.len() as f64,
        mean: g.iter().map(|p| p.1).sum::<f64>() / g.len() as f64,
        least: g.iter().map(|p| p.1).fold(f64::INFINITY, f64::min),
        greatest: g.iter().map(|p| p.1).fold(f64::NEG_INFINITY, f64::max),
    };
    (each, points.chunks(each).map(group).collect())
}

/// A number as a person reads it: four significant digits.
pub fn number(value: f64) -> String {
    let size = value.abs();
    if value == 0.0 {
        return "0".into();
    }
    if !(1e-3..1e6).contains(&size) {
        return format!("{value:.2e}");
    }
    let digits = (3 - size.log10().floor() as i32).clamp(0, 6) as usize;
    let text = format!("{value:.digits$}");
    match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_string(),
        false => text,
    }
}

/// Round numbers from at most `low` to at least `high`, about `count` of them.
fn ticks(low: f64, high: f64, count: usize) -> Vec<f64> {
    let raw = (high - low) / count as f64;
    let power = 10f64.powf(raw.log10().floor());
    let step =
        [1.0, 2.0, 5.0, 10.0].map(|m| m * power).into_iter().find(|s| *s >= raw * 0.999).unwrap_or(raw);
    let (first, last) = ((low / step + 1e-9).floor() as i64, (high / step - 1e-9).ceil() as i64);
    (first..=last).map(|i| i as f64 * step).collect()
}

/// A scale from values to the drawing, with its ticks.
#[derive(Debug, Clone)]
struct Axis {
    low: f64,
    high: f64,
    logarithmic: bool,
    ticks: Vec<f64>,
}

impl Axis {
    fn new(values: impl Iterator<Item = f64> + Clone, may_be_logarithmic: bool, count: usize) -> Axis {
        let low = values.clone().fold(f64::INFINITY, f64::min);
        let high = values.fold(f64::NEG_INFINITY, f64::max);
        if may_be_logarithmic && low > 0.0 && high / low > LOGARITHMIC {
            let (first, last) = (low.log10().floor() as i32, high.log10().ceil() as i32);
            let every = ((last - first) as usize).div_ceil(count).max(1);
            let ticks: Vec<f64> = (first..=last).step_by(every).map(|p| 10f64.powi(p)).collect();
            return Axis { low: 10f64.powi(first), high: 10f64.powi(last), logarithmic: true, ticks };
        }
        let pad = if high > low { 0.0 } else { (high.abs() * 0.05).max(0.5) };
        let ticks = ticks(low - pad, high + pad, count);
        let (low, high) = (ticks.first().copied().unwrap_or(low), ticks.last().copied().unwrap_or(high));
        Axis { low, high, logarithmic: false, ticks }
    }

    /// An axis of steps: it ends where the run does.
    fn steps(first: f64, last: f64) -> Axis {
        let high = if last > first { last } else { first + 1.0 };
        let inside = |t: &f64| *t >= first && *t <= high;
        let mut ticks: Vec<f64> = ticks(first, high, 5).into_iter().filter(inside).collect();
        ticks.retain(|t| t.fract() == 0.0);
        Axis { low: first, high, logarithmic: false, ticks }
    }

    /// Where a value lies, in 0 to 1.
    fn part(&self, value: f64) -> f64 {
        let f = |v: f64| if self.logarithmic { v.max(1e-300).log10() } else { v };
        (f(value) - f(self.low)) / (f(self.high) - f(self.low))
    }
}

/// Where a step and a value lie in the drawing.
fn place(x: f64, y: f64) -> (f64, f64) {
    let [left, right, top, bottom] = MARGIN;
    (left + x * (SIZE[0] - left - right), SIZE[1] - bottom - y * (SIZE[1] - top - bottom))
}

impl Chart {
    /// Draws the chart; nothing if no line has a point.
    pub fn draw(&self, h: &mut Html) {
        let lines: Vec<(&Line, usize, Vec<Thinned>)> = self
            .lines
            .iter()
            .filter(|line| !line.points.is_empty())
            .map(|line| {
                let (each, points) = thin(&line.points);
                (line, each, points)
            })
            .collect();
        if lines.is_empty() {
            return;
        }
        let all = || lines.iter().flat_map(|l| &l.2);
        let steps = all().map(|p| p.step);
        let x =
            Axis::steps(steps.clone().fold(f64::INFINITY, f64::min), steps.fold(f64::NEG_INFINITY, f64::max));
        let y = Axis::new(all().flat_map(|p| [p.least, p.greatest]), true, 4);
        let unit = if y.logarithmic { format!("{}, logarithmic", self.unit) } else { self.unit.clone() };
        let data: Vec<_> = lines
            .iter()
            .map(|(line, _, points)| {
                let at = |p: &Thinned| {
                    let (px, py) = place(x.part(p.step), y.part(p.mean));
                    json!([round(px), round(py), p.step.round(), number(p.mean)])
                };
                json!({"name": line.name, "points": points.iter().map(at).collect::<Vec<_>>()})
            })
            .collect();
        let data = json!(data).to_string();
        let text = self.description(&lines);
        let figure = [("class", "chart"), ("id", self.id.as_str())];
        h.element("figure", &figure, |h| {
            h.element("figcaption", &[], |h| {
                h.leaf("b", &[], &self.title);
                h.text(&format!(" ({unit})"));
            });
            let view = format!("0 0 {} {}", SIZE[0], SIZE[1]);
            let attributes = [
                ("viewBox", view.as_str()),
                ("role", "img"),
                ("aria-label", &text),
                ("tabindex", "0"),
                ("data-lines", &data),
            ];
            h.element("svg", &attributes, |h| {
                axes(h, &x, &y);
                lines.iter().for_each(|(line, each, points)| curve(h, line, *each, points, &x, &y));
            });
            h.leaf("p", &[("class", "readout"), ("aria-live", "polite")], "");
            self.legend(h, &lines);
            let averaged = lines.iter().map(|l| l.1).max().unwrap_or(1);
            let thinned = match averaged {
                1 => String::new(),
                n => format!(
                    "A point is the mean of {n} steps, the band spans their least and greatest value. "
                ),
            };
            if !(thinned.is_empty() && self.note.is_empty()) {
                h.note(format!("{thinned}{}", self.note).trim_end());
            }
        });
    }

    /// The chart in words: the first and the last value of each line.
    fn description(&self, lines: &[(&Line, usize, Vec<Thinned>)]) -> String {
        let line = |(line, _, points): &(&Line, usize, Vec<Thinned>)| match (points.first(), points.last()) {
            (Some(a), Some(b)) => format!(
                "{} from {} at step {} to {} at step {}",
                line.name,
                number(a.mean),
                a.step.round(),
                number(b.mean),
                b.step.round()
            ),
            _ => line.name.clone(),
        };
        format!("{}: {}", self.title, lines.iter().map(line).collect::<Vec<_>>().join("; "))
    }

    fn legend(&self, h: &mut Html, lines: &[(&Line, usize, Vec<Thinned>)]) {
        h.element("ul", &[("class", "legend")], |h| {
            for (line, ..) in lines {
                let values = || line.points.iter().map(|p| p.1);
                let (first, last) = (values().next().unwrap_or(0.0), values().next_back().unwrap_or(0.0));
                let least = values().fold(f64::INFINITY, f64::min);
                let greatest = values().fold(f64::NEG_INFINITY, f64::max);
                h.element("li", &[], |h| {
                    let class = format!("curve s{}", line.style);
                    h.element("svg", &[("viewBox", "0 0 28 8"), ("aria-hidden", "true")], |h| {
                        h.void(
                            "line",
                            &[("x1", "0"), ("x2", "28"), ("y1", "4"), ("y2", "4"), ("class", &class)],
                        );
                    });
                    h.text(&format!(
                        " {}: first {}, last {}, least {}, greatest {}",
                        line.name,
                        number(first),
                        number(last),
                        number(least),
                        number(greatest)
                    ));
                });
            }
        });
    }
}

fn round(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

fn axes(h: &mut Html, x: &Axis, y: &Axis) {
    let line = |h: &mut Html, from: (f64, f64), to: (f64, f64), class: &str| {
        let [x1, y1, x2, y2] = [from.0, from.1, to.0, to.1].map(|v| round(v).to_string());
        h.void("line", &[("x1", &x1), ("y1", &y1), ("x2", &x2), ("y2", &y2), ("class", class)]);
    };
    let label = |h: &mut Html, (x, y): (f64, f64), anchor: &str, text: &str| {
        let (x, y) = (round(x).to_string(), round(y).to_string());
        h.leaf("text", &[("x", &x), ("y", &y), ("text-anchor", anchor)], text);
    };
    for tick in &y.ticks {
        let at = y.part(*tick);
        line(h, place(0.0, at), place(1.0, at), "grid");
        let (px, py) = place(0.0, at);
        label(h, (px - 6.0, py + 4.0), "end", &number(*tick));
    }
    for tick in &x.ticks {
        let at = x.part(*tick);
        line(h, place(at, 0.0), place(at, -0.02), "axis");
        let (px, py) = place(at, 0.0);
        label(h, (px, py + 18.0), "middle", &format!("{tick}"));
    }
    line(h, place(0.0, 0.0), place(1.0, 0.0), "axis");
    label(h, (SIZE[0] - MARGIN[1], SIZE[1] - 4.0), "end", "step");
}

fn curve(h: &mut Html, line: &Line, each: usize, points: &[Thinned], x: &Axis, y: &Axis) {
    let at = |p: &Thinned, value: f64| {
        let (px, py) = place(x.part(p.step), y.part(value));
        format!("{},{}", round(px), round(py))
    };
    if each > 1 {
        let there = points.iter().map(|p| at(p, p.greatest));
        let back = points.iter().rev().map(|p| at(p, p.least));
        let path = format!("M{}Z", there.chain(back).collect::<Vec<_>>().join("L"));
        h.void("path", &[("d", &path), ("class", &format!("band s{}", line.style))]);
    }
    let class = format!("curve s{}", line.style);
    let track: Vec<String> = points.iter().map(|p| at(p, p.mean)).collect();
    h.void("polyline", &[("points", &track.join(" ")), ("class", &class)]);
    // A few measurements are points, and a line of one point would not be seen.
    if points.len() <= 30 {
        for p in points {
            let (px, py) = place(x.part(p.step), y.part(p.mean));
            let (cx, cy) = (round(px).to_string(), round(py).to_string());
            h.void(
                "circle",
                &[("cx", &cx), ("cy", &cy), ("r", "3"), ("class", &format!("dot s{}", line.style))],
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart(points: Vec<(u64, f64)>) -> String {
        let lines = vec![Line { name: "a<b".into(), style: 2, points }];
        let mut h = Html::default();
        let (id, title, unit, note) = ("c".into(), "loss".into(), "nats".into(), String::new());
        Chart { id, title, unit, note, lines }.draw(&mut h);
        h.finish()
    }

    #[test]
    fn numbers_and_ticks_are_round() {
        for (value, text) in [
            (0.0, "0"),
            (5.0, "5"),
            (0.123456, "0.1235"),
            (-12.5, "-12.5"),
            (123456.0, "123456"),
            (0.00001, "1.00e-5"),
            (1e9, "1.00e9"),
        ] {
            assert_eq!(number(value), text);
        }
        assert_eq!(ticks(0.3, 9.2, 4), [0.0, 5.0, 10.0]);
        assert_eq!(ticks(0.0, 100.0, 5), [0.0, 20.0, 40.0, 60.0, 80.0, 100.0]);
        assert_eq!(ticks(-1.0, 1.0, 4), [-1.0, -0.5, 0.0, 0.5, 1.0]);
    }

    #[test]
    fn values_lie_where_the_axes_say() {
        let axis = Axis::new([0.0, 10.0].into_iter(), true, 4);
        assert_eq!((axis.low, axis.high, axis.part(5.0)), (0.0, 10.0, 0.5));
        let axis = Axis::new([0.01, 100.0].into_iter(), true, 4);
        assert!(axis.logarithmic && (axis.part(1.0) - 0.5).abs() < 1e-12, "{axis:?}");
        let constant = Axis::new([3.0].into_iter(), true, 4);
        assert!(constant.low < 3.0 && constant.high > 3.0);
        let text = chart(vec![(1, 0.0), (3, 10.0)]);
        assert!(text.contains("points=\"68,200 468,10\""), "{text}");
        assert!(text.contains("a&lt;b: first 0, last 10"), "{text}");
    }

    #[test]
    fn long_lines_are_thinned_to_means_and_bands() {
        let points: Vec<(u64, f64)> = (1..=1200).map(|i| (i, if i % 2 == 0 { 4.0 } else { 2.0 })).collect();
        let (each, thinned) = thin(&points);
        assert_eq!((each, thinned.len()), (4, 300));
        assert_eq!(thinned[0], Thinned { step: 2.5, mean: 3.0, least: 2.0, greatest: 4.0 });
        assert!(chart(points).contains("mean of 4 steps"));
        assert_eq!(chart(vec![]), "");
        assert!(chart(vec![(7, 1.0)]).contains("<circle"));
    }
}
