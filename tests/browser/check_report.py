#!/usr/bin/env python3
"""Opens a report in headless Chromium as a reader would: desk and phone, light, dark and printed.

    python3 tests/browser/check_report.py report.html [--shots FOLDER]

Needs playwright (pip install playwright) and a Chromium: the one that PRETEXT_CHROMIUM names, one on PATH, or playwright's
own (playwright install chromium). Fails on a message in the console, a request that leaves the page, a part that is not there,
a page wider than a phone, text of too little contrast, drawings that do not answer. --shots keeps screenshots.
"""

import argparse
import os
import pathlib
import shutil
import sys

from playwright.sync_api import sync_playwright

NAMES = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome"]
SECTIONS = ["summary", "results", "curves", "maps", "neighbours", "views", "predictions", "attention", "filters", "configuration"]

# Least contrast of text with what is behind it (WCAG 2.2, 1.4.3: 4.5 for text of this size), and where it is found.
CONTRAST = """() => {
  const rgb = text => (text.match(/[\\d.]+/g) || []).map(Number);
  const light = ([r, g, b]) => [r, g, b].map(v => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = e => {
    for (; e; e = e.parentElement) {
      const c = rgb(getComputedStyle(e).backgroundColor);
      if (c.length === 3 || c[3] > 0) return c;
    }
    return [255, 255, 255];
  };
  let worst = [99, ""];
  for (const e of document.querySelectorAll("body *")) {
    if (![...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim())) continue;
    if (["SCRIPT", "STYLE"].includes(e.tagName) || e.closest("[hidden]")) continue;
    const style = getComputedStyle(e);
    const [a, b] = [light(rgb(e.closest("svg") ? style.fill : style.color)), light(behind(e))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < worst[0]) worst = [ratio, e.tagName + "." + e.className + ": " + e.textContent.slice(0, 40)];
  }
  return worst;
}"""


def browser_path():
    given = os.environ.get("PRETEXT_CHROMIUM")
    return given or next((p for p in map(shutil.which, NAMES) if p), None)


def check(page, faults, what):
    for section in SECTIONS:
        if page.locator(f"section#{section}").count() != 1:
            faults.append(f"{what}: no section {section}")
    ids = page.evaluate("[...document.querySelectorAll('[id]')].map(e => e.id)")
    if len(ids) != len(set(ids)):
        faults.append(f"{what}: an id twice")
    broken = page.evaluate("[...document.images].filter(i => !i.complete || i.naturalWidth === 0).length")
    if broken:
        faults.append(f"{what}: {broken} images are broken")
    width, window = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
    if width > window:
        faults.append(f"{what}: {width} pixels wide in a window of {window}")
    ratio, where = page.evaluate(CONTRAST)
    print(f"{what}: {width} pixels wide, least contrast {ratio:.2f} ({where})")
    if ratio < 4.5:
        faults.append(f"{what}: contrast {ratio:.2f} of {where}")


def use(page, faults):
    chart = page.locator("svg[data-lines]").first
    if chart.count():
        chart.scroll_into_view_if_needed()
        chart.hover()
        if " at step " not in page.locator(".chart .readout").first.inner_text():
            faults.append("the first chart says nothing under the pointer")
        chart.focus()
        page.mouse.move(0, 0)
        page.keyboard.press("ArrowLeft")
        if " at step " not in page.locator(".chart .readout").first.inner_text():
            faults.append("the first chart says nothing at a key")
    mark = page.locator("svg[data-map] use").first
    if mark.count():
        mark.scroll_into_view_if_needed()
        mark.hover(force=True)
        thumbnail = page.locator("#thumbnail")
        if not thumbnail.is_visible() or "data:image/png" not in thumbnail.locator(".sheet").evaluate("e => getComputedStyle(e).backgroundImage"):
            faults.append("a mark on the map shows no thumbnail")
        page.mouse.move(0, 0)


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("report", type=pathlib.Path)
    arguments.add_argument("--shots", type=pathlib.Path)
    arguments = arguments.parse_args()
    address = arguments.report.resolve().as_uri()
    faults = []
    root = hasattr(os, "geteuid") and os.geteuid() == 0
    with sync_playwright() as p:
        browser = p.chromium.launch(executable_path=browser_path(), args=["--no-sandbox"] if root else [])
        for what, width, scheme, script in [
            ("desk, light", 1280, "light", True),
            ("desk, dark", 1280, "dark", True),
            ("phone, light", 375, "light", True),
            ("phone, dark", 375, "dark", True),
            ("desk, no script", 1280, "light", False),
        ]:
            context = browser.new_context(viewport={"width": width, "height": 812}, color_scheme=scheme, java_script_enabled=script)
            page = context.new_page()
            page.on("console", lambda m, what=what: faults.append(f"{what}: console: {m.text}"))
            page.on("pageerror", lambda e, what=what: faults.append(f"{what}: {e}"))
            page.on(
                "request",
                lambda r, what=what: r.url.startswith(("data:", address)) or faults.append(f"{what}: asks for {r.url}"),
            )
            page.goto(address)
            if script:
                check(page, faults, what)
                use(page, faults)
            dark = page.evaluate("getComputedStyle(document.body).backgroundColor")
            if (scheme == "dark") != (sum(map(int, dark[4:-1].split(","))) < 3 * 128):
                faults.append(f"{what}: the paper is {dark}")
            if arguments.shots:
                arguments.shots.mkdir(parents=True, exist_ok=True)
                page.screenshot(path=arguments.shots / (what.replace(", ", "-").replace(" ", "-") + ".png"), full_page=True)
            if what == "desk, dark":
                page.emulate_media(media="print")
                printed = page.evaluate("getComputedStyle(document.body).backgroundColor")
                if printed != "rgb(255, 255, 255)" or page.locator("nav").is_visible():
                    faults.append(f"printed on {printed}")
            context.close()
        browser.close()
    for fault in faults:
        print(f"FAULT {fault}", file=sys.stderr)
    print("the page is as it should be" if not faults else f"{len(faults)} faults")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
