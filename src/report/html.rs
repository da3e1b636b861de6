//! HTML and SVG, written so that elements nest and text is text: an element closes where its closure ends, and everything that is
//! not markup is escaped.

use std::fmt::Write;

/// Elements that never have content.
const VOID: &[&str] = &["img", "meta", "br", "circle", "line", "path", "rect", "use", "polyline"];

/// A page, or a part of one, under construction.
#[derive(Debug, Default)]
pub struct Html {
    text: String,
}

/// Text with the characters that mean something in HTML replaced, so that it can stand in content and in quoted attributes.
/// Control characters, which HTML does not allow, become U+FFFD.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            '\n' | '\t' => out.push(c),
            c if c.is_control() => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

impl Html {
    /// The markup.
    pub fn finish(self) -> String {
        self.text
    }

    fn open(&mut self, name: &str, attributes: &[(&str, &str)]) {
        // A string takes all that is written to it.
        let _ = write!(self.text, "<{name}");
        for (key, value) in attributes {
            let _ = write!(self.text, " {key}=\"{}\"", escape(value));
        }
    }

    /// An element and, from `content`, what is in it.
    pub fn element(&mut self, name: &str, attributes: &[(&str, &str)], content: impl FnOnce(&mut Html)) {
        self.open(name, attributes);
        self.text.push('>');
        content(self);
        let _ = write!(self.text, "</{name}>");
    }

    /// An element that holds this text.
    pub fn leaf(&mut self, name: &str, attributes: &[(&str, &str)], text: &str) {
        self.element(name, attributes, |h| h.text(text));
    }

    /// An element without content, such as `img`.
    pub fn void(&mut self, name: &str, attributes: &[(&str, &str)]) {
        debug_assert!(VOID.contains(&name), "{name} is closed by a tag");
        self.open(name, attributes);
        self.text.push_str("/>");
    }

    /// Text.
    pub fn text(&mut self, text: &str) {
        self.text.push_str(&escape(text));
    }

    /// `style` or `script`, whose content is not markup. The content is the program's own and must not close it.
    pub fn verbatim(&mut self, name: &str, content: &str) {
        debug_assert!(!content.to_lowercase().contains(&format!("</{name}")));
        let _ = write!(self.text, "<{name}>{content}</{name}>");
    }

    /// A paragraph that explains what is shown.
    pub fn note(&mut self, text: &str) {
        self.leaf("p", &[("class", "note")], text);
    }

    /// A sentence in the place of something that is not there.
    pub fn missing(&mut self, text: &str) {
        self.leaf("p", &[("class", "missing")], text);
    }

    /// A table whose first column names the rows. Numbers stand right.
    pub fn table(&mut self, caption: &str, header: &[&str], rows: &[Vec<String>]) {
        self.element("div", &[("class", "wide"), ("tabindex", "0")], |h| {
            h.element("table", &[], |h| {
                h.leaf("caption", &[], caption);
                h.element("thead", &[], |h| {
                    h.element("tr", &[], |h| {
                        header.iter().for_each(|cell| h.leaf("th", &[("scope", "col")], cell));
                    });
                });
                h.element("tbody", &[], |h| {
                    for row in rows {
                        h.element("tr", &[], |h| {
                            for (i, cell) in row.iter().enumerate() {
                                match i {
                                    0 => h.leaf("th", &[("scope", "row")], cell),
                                    _ => h.leaf("td", &[], cell),
                                }
                            }
                        });
                    }
                });
            });
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_nest_and_text_is_escaped() {
        let mut h = Html::default();
        h.element("p", &[("title", "a \"b\" <c>")], |h| {
            h.text("1 < 2 & '3'\u{0}");
            h.void("br", &[]);
            h.leaf("b", &[], "</p><script>");
        });
        assert_eq!(
            h.finish(),
            "<p title=\"a &quot;b&quot; &lt;c&gt;\">1 &lt; 2 &amp; &#39;3&#39;\u{fffd}<br/><b>&lt;/p&gt;&lt;script&gt;</b></p>"
        );
    }

    #[test]
    fn a_table_names_its_rows_and_columns() {
        let mut h = Html::default();
        h.table("what", &["features", "kNN"], &[vec!["pixels".into(), "81".into()]]);
        let text = h.finish();
        for part in [
            "<caption>what</caption>",
            "<th scope=\"col\">kNN</th>",
            "<th scope=\"row\">pixels</th><td>81</td></tr>",
        ] {
            assert!(text.contains(part), "{text}");
        }
    }
}
