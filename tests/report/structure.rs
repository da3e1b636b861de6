//! What every page must be: elements nest, ids are unique, every image has a text, nothing refers to another place.

use std::collections::BTreeSet;

/// Elements that HTML never closes, and those of SVG that the page closes at once.
const VOID: &[&str] = &["!doctype", "img", "meta", "br"];

/// A start tag: its name and attributes, unescaped.
#[derive(Debug)]
pub struct Tag {
    pub name: String,
    pub attributes: Vec<(String, String)>,
}

impl Tag {
    pub fn get(&self, key: &str) -> Option<&str> {
        self.attributes.iter().find(|a| a.0 == key).map(|a| a.1.as_str())
    }
}

/// The characters that escapes stand for.
pub fn unescape(text: &str) -> String {
    let mut text = text.to_string();
    for (escaped, plain) in [("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\""), ("&#39;", "'"), ("&amp;", "&")] {
        text = text.replace(escaped, plain);
    }
    text
}

fn attributes(text: &str) -> Result<Vec<(String, String)>, String> {
    let mut found = Vec::new();
    let mut rest = text.trim();
    while !rest.is_empty() {
        let (key, after) =
            rest.split_once('=').ok_or_else(|| format!("an attribute without a value: {rest}"))?;
        let after = after.strip_prefix('"').ok_or_else(|| format!("a value without quotes: {rest}"))?;
        let (value, after) = after.split_once('"').ok_or_else(|| format!("an open value: {rest}"))?;
        if value.contains('<') {
            return Err(format!("an unescaped value: {value}"));
        }
        if found.iter().any(|(k, _)| k == key.trim()) {
            return Err(format!("{key} twice"));
        }
        found.push((key.trim().to_string(), unescape(value)));
        rest = after.trim_start();
    }
    Ok(found)
}

/// All start tags of a page, in order; an error where elements do not nest.
pub fn tags(page: &str) -> Result<Vec<Tag>, String> {
    let (mut found, mut open, mut rest) = (Vec::new(), Vec::<String>::new(), page);
    while let Some(start) = rest.find('<') {
        let text = &rest[..start];
        if text.contains('>') {
            return Err(format!("a stray '>' in {text:?}"));
        }
        let end = rest[start..].find('>').ok_or("a tag that does not end")? + start;
        let inside = &rest[start + 1..end];
        rest = &rest[end + 1..];
        if let Some(name) = inside.strip_prefix('/') {
            match open.pop() {
                Some(top) if top == name => continue,
                top => return Err(format!("</{name}> closes {top:?}, inside {open:?}")),
            }
        }
        let closed = inside.ends_with('/');
        let inside = inside.strip_suffix('/').unwrap_or(inside);
        let (name, given) = inside.split_once(char::is_whitespace).unwrap_or((inside, ""));
        let name = name.to_lowercase();
        let is_void = VOID.contains(&name.as_str());
        if name != "!doctype" {
            found.push(Tag { name: name.clone(), attributes: attributes(given)? });
        }
        if matches!(name.as_str(), "script" | "style") {
            let close = format!("</{name}>");
            let at = rest.find(&close).ok_or_else(|| format!("{name} does not end"))?;
            rest = &rest[at + close.len()..];
        } else if !closed && !is_void {
            open.push(name);
        }
    }
    match open.is_empty() {
        true => Ok(found),
        false => Err(format!("never closed: {open:?}")),
    }
}

/// Fails unless the page is what every page must be; gives its tags.
pub fn check(page: &str) -> Vec<Tag> {
    let tags = tags(page).unwrap_or_else(|e| panic!("{e}"));
    let count = |name: &str| tags.iter().filter(|t| t.name == name).count();
    for once in ["html", "head", "body", "title", "main", "h1", "style", "script"] {
        assert_eq!(count(once), 1, "<{once}>");
    }
    let known = [
        "html",
        "head",
        "meta",
        "title",
        "style",
        "body",
        "header",
        "nav",
        "main",
        "section",
        "article",
        "footer",
        "script",
        "h1",
        "h2",
        "h3",
        "h4",
        "h5",
        "p",
        "a",
        "b",
        "ul",
        "li",
        "dl",
        "dt",
        "dd",
        "div",
        "span",
        "figure",
        "figcaption",
        "img",
        "table",
        "caption",
        "thead",
        "tbody",
        "tr",
        "th",
        "td",
        "code",
        "pre",
        "details",
        "summary",
        "svg",
        "defs",
        "path",
        "use",
        "line",
        "circle",
        "polyline",
        "text",
    ];
    let mut ids = BTreeSet::new();
    for tag in &tags {
        assert!(known.contains(&tag.name.as_str()), "<{}> comes from data: {tag:?}", tag.name);
        if let Some(id) = tag.get("id") {
            assert!(ids.insert(id.to_string()), "id {id} twice");
        }
        for (key, value) in &tag.attributes {
            assert!(!key.starts_with("on"), "{tag:?}");
            if matches!(key.as_str(), "src" | "href" | "xlink:href" | "action" | "data" | "poster" | "srcset")
            {
                assert!(
                    value.starts_with("data:image/png;base64,") || value.starts_with('#'),
                    "{key}={value}"
                );
            }
        }
        match tag.name.as_str() {
            "img" => assert!(tag.get("alt").is_some() && tag.get("src").is_some(), "{tag:?}"),
            "th" => assert!(tag.get("scope").is_some(), "{tag:?}"),
            "svg" => assert!(tag.get("aria-label").is_some() || tag.get("aria-hidden").is_some(), "{tag:?}"),
            _ => {}
        }
    }
    for tag in tags.iter().filter(|t| matches!(t.name.as_str(), "a" | "use")) {
        let target = tag.get("href").unwrap();
        assert!(ids.contains(&target[1..]), "{target} is not there");
    }
    for word in
        ["http://", "https://", "@import", "fetch(", "XMLHttpRequest", "WebSocket", "<link", "<iframe"]
    {
        assert!(!page.contains(word), "{word}");
    }
    for (i, _) in page.match_indices("url(") {
        assert!(page[i..].starts_with("url(\"data:image/png;base64,"), "{}", &page[i..i + 40]);
    }
    assert!(page.contains("default-src &#39;none&#39;"), "the page's own policy");
    tags
}

#[test]
fn mistakes_are_found() {
    assert_eq!(tags("<p a=\"1\">x<br/><b>y</b></p>").unwrap().len(), 3);
    for wrong in [
        "<p><b></p></b>",
        "<p>",
        "<p a=1></p>",
        "<p a=\"1\" a=\"2\"></p>",
        "<p>a > b</p>",
        "<p a=\"<\"></p>",
        "</p>",
    ] {
        assert!(tags(wrong).is_err(), "{wrong}");
    }
}
