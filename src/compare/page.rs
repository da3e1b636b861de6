//! `compare.html`: one page that needs nothing else. The table, bars as inline SVG, the recommendation.

use super::table::{Results, Row};

/// What a page looks like; colours follow the reader's light or dark setting.
const STYLE: &str = "
:root { color-scheme: light dark; --text: #1b1f24; --back: #fff; --line: #d5dae0; --bar: #3b73b9; --best: #1d8a55; --floor: #a3abb5 }
@media (prefers-color-scheme: dark) { :root { --text: #e4e8ed; --back: #15181c; --line: #3a424c; --bar: #6ea2e6; --best: #4cc38a; --floor: #6d7681 } }
body { font: 16px/1.5 system-ui, sans-serif; color: var(--text); background: var(--back); max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.5rem } h2 { font-size: 1.1rem; margin-top: 2rem }
.scroll { overflow-x: auto } table { border-collapse: collapse; white-space: nowrap }
th, td { padding: .3rem .7rem; border-bottom: 1px solid var(--line); text-align: right }
th:first-child, td:first-child, th:nth-child(2), td:nth-child(2) { text-align: left }
tr.best { font-weight: 600 } tr.floor { opacity: .75 } svg { max-width: 100%; height: auto } text { fill: var(--text); font: 13px system-ui, sans-serif }
.bar { fill: var(--bar) } .bar.best { fill: var(--best) } .bar.floor { fill: var(--floor) } .error { stroke: var(--text) }
";

/// Text as HTML.
pub fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// The page of a comparison.
pub fn page(results: &Results) -> String {
    let rows = results.rows();
    let class = |row: &Row| match (row.best, row.floor) {
        (true, _) => " class=\"best\"",
        (_, true) => " class=\"floor\"",
        _ => "",
    };
    let cells = |tag: &str, cells: &[String]| -> String {
        cells.iter().map(|cell| format!("<{tag}>{}</{tag}>", escape(cell))).collect()
    };
    let body: String = rows
        .iter()
        .map(|row| format!("<tr{}>{}</tr>\n", class(row), cells("td", &Results::cells(row))))
        .collect();
    let title = escape(&format!("Which method for {}", results.plan.data));
    let paragraphs: String = results
        .paragraphs()
        .iter()
        .map(|(head, text)| format!("<h2>{}</h2>\n<p>{}</p>\n", escape(head), escape(text)))
        .collect();
    let notes: String = results.notes().iter().map(|note| format!("<p>{}</p>\n", escape(note))).collect();
    let few = format!("Linear probe, labels {}", results.plan.labels);
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" content=\"width=device-width\">\n\
         <title>{title}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<h1>{title}</h1>\n<p>{}.</p>\n{paragraphs}\
         <h2>{}</h2>\n{}\n<h2>Linear probe, all labels</h2>\n{}\n<h2>All numbers</h2>\n<div class=\"scroll\"><table>\n<tr>{}</tr>\n{body}</table></div>\n\
         {notes}</body>\n</html>\n",
        escape(&results.title()),
        escape(&few),
        bars(&rows, |row| row.few),
        bars(&rows, |row| row.linear.map(|v| (v, 0.0))),
        cells("th", &results.heads()),
    )
}

/// Height of a bar with its gap, where bars begin, and how long 100 % is, in the picture's units.
const HEIGHT: f64 = 24.0;
const LEFT: f64 = 420.0;
const LENGTH: f64 = 420.0;

/// A bar a row, of a percentage and its deviation.
fn bars(rows: &[Row], value: impl Fn(&Row) -> Option<(f64, f64)>) -> String {
    let shown: Vec<(&Row, (f64, f64))> = rows.iter().filter_map(|row| Some((row, value(row)?))).collect();
    let height = HEIGHT * shown.len() as f64 + 4.0;
    let width = LEFT + LENGTH + 70.0;
    let mut svg = format!(
        "<svg viewBox=\"0 0 {width} {height}\" width=\"{width}\" role=\"img\" aria-label=\"bars\">\n"
    );
    for (i, (row, (percent, deviation))) in shown.iter().enumerate() {
        let (top, end) = (HEIGHT * i as f64 + 2.0, LEFT + LENGTH * percent / 100.0);
        let class = if row.best {
            "bar best"
        } else if row.floor {
            "bar floor"
        } else {
            "bar"
        };
        svg.push_str(&format!(
            "<text x=\"{:.0}\" y=\"{:.0}\" text-anchor=\"end\">{}</text><rect class=\"{class}\" x=\"{LEFT}\" y=\"{top}\" width=\"{:.1}\" height=\"{}\"/>",
            LEFT - 8.0,
            top + 15.0,
            escape(&row.name),
            (end - LEFT).max(0.0),
            HEIGHT - 5.0,
        ));
        if *deviation > 0.0 {
            let reach = LENGTH * deviation / 100.0;
            let middle = top + (HEIGHT - 5.0) / 2.0;
            svg.push_str(&format!(
                "<line class=\"error\" x1=\"{:.1}\" x2=\"{:.1}\" y1=\"{middle}\" y2=\"{middle}\"/>",
                end - reach,
                end + reach
            ));
        }
        let at = end + LENGTH * deviation / 100.0 + 6.0;
        svg.push_str(&format!("<text x=\"{at:.1}\" y=\"{:.0}\">{percent:.2}</text>\n", top + 15.0));
    }
    svg + "</svg>"
}

#[cfg(test)]
mod tests {
    #[test]
    fn text_cannot_become_markup() {
        assert_eq!(super::escape("a<b>&\"c\""), "a&lt;b&gt;&amp;&quot;c&quot;");
    }
}
