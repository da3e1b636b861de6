"use strict";
// Values under the pointer of a chart, thumbnails under the pointer of a map. The page can be read without.

// The place of a pointer in the coordinates of a drawing.
function inside(svg, event) {
  const box = svg.getBoundingClientRect(), view = svg.viewBox.baseVal;
  return [(event.clientX - box.left) * view.width / box.width, (event.clientY - box.top) * view.height / box.height];
}

function nearest(points, x) {
  return points.reduce((best, p) => Math.abs(p[0] - x) < Math.abs(best[0] - x) ? p : best);
}

for (const svg of document.querySelectorAll("svg[data-lines]")) {
  const lines = JSON.parse(svg.dataset.lines), readout = svg.parentNode.querySelector(".readout");
  const every = [...new Set(lines.flatMap(line => line.points.map(p => p[0])))].sort((a, b) => a - b);
  const cursor = document.createElementNS(svg.namespaceURI, "line");
  cursor.setAttribute("class", "cursor");
  cursor.setAttribute("y1", 10);
  cursor.setAttribute("y2", svg.viewBox.baseVal.height - 40);
  cursor.style.display = "none";
  svg.append(cursor);
  let at = every.length - 1;
  const show = x => {
    const found = lines.map(line => [line.name, nearest(line.points, x)]);
    const place = found.reduce((best, f) => Math.abs(f[1][0] - x) < Math.abs(best - x) ? f[1][0] : best, found[0][1][0]);
    cursor.setAttribute("x1", place);
    cursor.setAttribute("x2", place);
    cursor.style.display = "";
    readout.textContent = found.map(([name, p]) => `${name}: ${p[3]} at step ${p[2]}`).join("; ");
  };
  const hide = () => { cursor.style.display = "none"; readout.textContent = ""; };
  svg.addEventListener("pointermove", event => show(inside(svg, event)[0]));
  svg.addEventListener("pointerleave", hide);
  svg.addEventListener("blur", hide);
  svg.addEventListener("keydown", event => {
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (by === undefined) return;
    event.preventDefault();
    at = Math.min(Math.max(at + by, 0), every.length - 1);
    show(every[at]);
  });
}

const box = document.getElementById("thumbnail"), image = box.querySelector(".sheet"), caption = box.querySelector("span");
for (const svg of document.querySelectorAll("svg[data-map]")) {
  const map = JSON.parse(svg.dataset.map), marks = [...svg.querySelectorAll("use")];
  const places = marks.map(mark => [mark.x.baseVal.value, mark.y.baseVal.value]);
  let near = null;
  const hide = () => {
    box.hidden = true;
    if (near) near.classList.remove("near");
    near = null;
  };
  svg.addEventListener("pointermove", event => {
    const [x, y] = inside(svg, event);
    let best = -1, distance = 150;
    places.forEach(([px, py], i) => {
      const d = (px - x) ** 2 + (py - y) ** 2;
      if (d < distance) [best, distance] = [i, d];
    });
    hide();
    if (best < 0) return;
    near = marks[best];
    near.classList.add("near");
    image.className = `sheet sheet-${svg.dataset.sheet}`;
    const style = getComputedStyle(image), size = name => Number(style.getPropertyValue(name));
    const [w, h, columns, rows] = ["--w", "--h", "--columns", "--rows"].map(size);
    const scale = 84 / Math.max(w, h);
    image.style.width = `${w * scale}px`;
    image.style.height = `${h * scale}px`;
    image.style.backgroundSize = `${columns * w * scale}px ${rows * h * scale}px`;
    image.style.backgroundPosition = `${-(best % columns) * w * scale}px ${-Math.floor(best / columns) * h * scale}px`;
    caption.textContent = map.classes[map.of[best]];
    box.hidden = false;
    const [left, top] = [event.clientX + 14, event.clientY + 14];
    box.style.left = `${Math.min(left, innerWidth - box.offsetWidth - 4)}px`;
    box.style.top = `${Math.min(top, innerHeight - box.offsetHeight - 4)}px`;
  });
  svg.addEventListener("pointerleave", hide);
}
