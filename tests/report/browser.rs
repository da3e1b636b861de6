//! A headless Chromium, if there is one: runs the page, and says what it complains of.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// Names that Chromium has on PATH.
const NAMES: [&str; 6] =
    ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "headless_shell"];

/// The browser that `PRETEXT_CHROMIUM` names, or the first on PATH.
pub fn find() -> Option<PathBuf> {
    if let Some(path) = std::env::var_os("PRETEXT_CHROMIUM") {
        let path = PathBuf::from(path);
        assert!(path.exists(), "PRETEXT_CHROMIUM: there is no {}", path.display());
        return Some(path);
    }
    let folders: Vec<PathBuf> = std::env::split_paths(&std::env::var_os("PATH")?).collect();
    NAMES.iter().flat_map(|name| folders.iter().map(move |f| f.join(name))).find(|path| path.is_file())
}

/// What a browser made of a page.
pub struct Seen {
    /// The document after its scripts.
    pub document: String,
    /// Lines of the console: messages, errors, what the page's policy refused.
    pub console: Vec<String>,
}

/// Opens a file, with no host to be reached, in a profile under `folder`.
pub fn open(browser: &Path, file: &Path, folder: &Path) -> Seen {
    let (out, err) = (folder.join("document.html"), folder.join("log.txt"));
    let mut command = Command::new(browser);
    command
        .args(["--headless=new", "--disable-gpu", "--no-first-run", "--disable-extensions", "--no-sandbox"])
        .args(["--disable-background-networking", "--disable-component-update", "--disable-sync"])
        .args(["--host-resolver-rules=MAP * ~NOTFOUND", "--enable-logging=stderr", "--window-size=1000,800"])
        .args(["--virtual-time-budget=5000", "--dump-dom"])
        .arg(format!("--user-data-dir={}", folder.join("profile").display()))
        .arg(format!("file://{}", file.display()))
        .stdout(std::fs::File::create(&out).unwrap())
        .stderr(std::fs::File::create(&err).unwrap());
    let mut child = command.spawn().unwrap();
    let begun = Instant::now();
    let status = loop {
        match child.try_wait().unwrap() {
            Some(status) => break status,
            None if begun.elapsed() > Duration::from_secs(300) => {
                let _ = child.kill();
                let _ = child.wait();
                panic!("{} does not end: {}", browser.display(), std::fs::read_to_string(&err).unwrap());
            }
            None => std::thread::sleep(Duration::from_millis(50)),
        }
    };
    let log = String::from_utf8_lossy(&std::fs::read(&err).unwrap()).into_owned();
    assert!(status.success(), "{status}: {log}");
    Seen {
        document: String::from_utf8_lossy(&std::fs::read(&out).unwrap()).into_owned(),
        console: log.lines().filter(|line| line.contains("CONSOLE")).map(String::from).collect(),
    }
}

/// Put at the end of a page, uses it: moves a pointer over every drawing, presses a key, and makes the page as narrow as a
/// phone. What it finds is the text of `<output id="probe">`.
pub const PROBE: &str = r##"<script>
const found = { readouts: 0, keys: 0, maps: 0, thumbnails: 0, wide: [], images: 0 };
const move = (svg, x, y) => {
  const box = svg.getBoundingClientRect();
  const at = { clientX: box.left + x * box.width, clientY: box.top + y * box.height, bubbles: true };
  svg.dispatchEvent(new PointerEvent("pointermove", at));
};
for (const svg of document.querySelectorAll("svg[data-lines]")) {
  const readout = svg.parentNode.querySelector(".readout");
  move(svg, 0.9, 0.5);
  if (readout.textContent.includes(" at step ")) found.readouts++;
  svg.dispatchEvent(new PointerEvent("pointerleave"));
  svg.dispatchEvent(new KeyboardEvent("keydown", { key: "ArrowLeft" }));
  if (readout.textContent.includes(" at step ")) found.keys++;
}
for (const svg of document.querySelectorAll("svg[data-map]")) {
  found.maps++;
  const mark = svg.querySelector("use");
  move(svg, mark.x.baseVal.value / 420, mark.y.baseVal.value / 420);
  const box = document.getElementById("thumbnail");
  const picture = getComputedStyle(box.querySelector(".sheet")).backgroundImage;
  if (!box.hidden && picture.startsWith("url(\"data:image/png") && svg.querySelectorAll(".near").length === 1) found.thumbnails++;
  svg.dispatchEvent(new PointerEvent("pointerleave"));
}
document.documentElement.style.width = "375px";
for (const e of document.querySelectorAll("body *")) {
  if (e.closest(".wide, pre, svg, #thumbnail") && !e.matches(".wide, pre, .chart > svg, .map > svg")) continue;
  if (e.getBoundingClientRect().right > 375.5) found.wide.push(e.tagName + "." + e.className);
}
Promise.all([...document.images].map(image => image.decode().then(() => found.images++, () => 0))).then(() => {
  const output = document.createElement("output");
  output.id = "probe";
  output.textContent = JSON.stringify(found);
  document.body.append(output);
});
</script></body></html>"##;
