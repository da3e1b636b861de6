"""What is kept of a run: lines of JSON as they come, what a later run need not repeat, and the table."""
import json

import stats

EMULATED = "emulated: no times"


class Lines:
    """Appends lines to a file; each is whole and on disk before the next."""

    def __init__(self, path):
        self.path = path

    def read(self):
        """All lines that are whole: the last may not be, where a run was killed."""
        lines = []
        try:
            with open(self.path, encoding="utf-8") as file:
                for text in file:
                    try:
                        line = json.loads(text)
                    except ValueError:
                        continue
                    if isinstance(line, dict):
                        lines.append(line)
        except FileNotFoundError:
            pass
        return lines

    def append(self, line):
        with open(self.path, "a+b") as file:
            # After half a line a new one begins.
            if file.tell() > 0:
                file.seek(-1, 2)
                if file.read(1) != b"\n":
                    file.write(b"\n")
            file.write(json.dumps(line).encode() + b"\n")


def of_key(lines, key):
    """The lines of a commit, a library and a device: only these are compared, and only these spare work."""
    return [line for line in lines if all(line.get(name) == value for name, value in key.items())]


def done(lines, key):
    """Names of the cases that need not be run again: failures are tried once more."""
    return {line["id"] for line in of_key(lines, key) if line.get("event") == "case" and "failed" not in line}


def latest(lines, key):
    """The last line of each case, in the order of their first."""
    cases = {}
    for line in of_key(lines, key):
        if line.get("event") == "case":
            cases[line["id"]] = line
    return list(cases.values())


def markdown(lines, key, planned, note=""):
    """The page: what was run on what, checks, a mean a family, a line a case."""
    mine = of_key(lines, key)
    machine = next((line for line in reversed(mine) if line.get("event") == "machine"), {})
    cases = latest(lines, key)
    emulated = machine.get("emulated", False)
    text = ["# Kernels beside PyTorch", ""]
    built = f"Commit {key.get('commit', 'unknown')}, library {key.get('library', 'unknown')}"
    text.append(f"Device: {machine.get('device', 'unknown')}. {built}. {_versions(machine)}")
    if emulated:
        text += ["", f"**{EMULATED.capitalize()}.** Results at toy sizes are checked; nothing is measured."]
    complete = sum("failed" not in case for case in cases)
    text += ["", f"{complete} of {planned} cases{note}."]
    text += _checks(mine)
    text += _emulated(cases) if emulated else _means(cases) + _table(cases)
    wrong = [case for case in cases if case.get("verified") is False]
    failed = [case for case in cases if "failed" in case]
    for title, some, reason in (("Wrong", wrong, "why"), ("Failed", failed, "failed")):
        if some:
            text += ["", f"## {title}", ""] + [f"- {case['id']}: {_one_line(case.get(reason))}" for case in some]
    trouble = [line for line in mine if line.get("event") in ("trouble", "sticky")]
    if trouble:
        text += ["", "## Trouble", ""] + [f"- {_one_line(line.get('text') or line.get('why'))}" for line in trouble]
    left_out = [(case["id"], name, why) for case in cases for name, why in case.get("left_out", {}).items()]
    if left_out:
        text += ["", "## Left out of PyTorch's ways", ""] + [f"- {case}: {name}: {_one_line(why)}" for case, name, why in left_out]
    return "\n".join(text) + "\n"


def _one_line(text):
    return " ".join(str(text).split())[:300]


def _versions(machine):
    parts = [f"{name} {machine[name]}" for name in ("torch", "cuda", "cudnn", "driver", "nvrtc") if machine.get(name)]
    return ", ".join(parts)


def _checks(lines):
    """Correctness on the device: families of kernels, and single instructions."""
    families, other = {}, []
    for line in lines:
        if line.get("event") == "check":
            families[line["family"]] = line
        elif line.get("event") in ("instructions", "checks"):
            other = [o for o in other if o.get("file") != line.get("file")] + [line]
    text = []
    if families or other:
        text += ["", "## Correctness", ""]
        right = {name: line for name, line in families.items() if not line.get("error")}
        if right:
            text.append("Families whose cases all agree: " + ", ".join(f"{name} ({line['cases']})" for name, line in right.items()) + ".")
        text += [f"- **{name} is wrong**: {_one_line(line['error'])}" for name, line in families.items() if line.get("error")]
        text += [f"- {_one_line(line['text'])}" for line in other]
    return text


def headline(case):
    """The fastest of PyTorch's ways: (name, its line), or nothing."""
    ways = case.get("reference") or {}
    return min(ways.items(), key=lambda way: way[1]["us"]) if ways else None


def means(cases):
    """By family the geometric mean over right results of how many times faster we are than the fastest way."""
    families = {}
    for case in cases:
        best = headline(case)
        if best and case.get("verified"):
            families.setdefault(case["family"], []).append(best[1]["ratio"])
    return {family: (stats.geometric_mean(ratios), len(ratios)) for family, ratios in families.items()}


def _means(cases):
    rows = [f"| {family} | {count} | {mean:.2f} |" for family, (mean, count) in means(cases).items()]
    if not rows:
        return []
    head = ["", "## Families", "", "How many times faster than the fastest of PyTorch's ways: geometric means. Above 1 we are faster.", ""]
    return head + ["| family | cases | times faster |", "|---|---:|---:|"] + rows


def _table(cases):
    rows = []
    for case in cases:
        if "us" not in case:
            continue
        best = headline(case)
        ratio = f"{best[1]['ratio']:.2f} [{best[1]['low']:.2f}, {best[1]['high']:.2f}]" if best else "-"
        reference = f"{best[1]['us']:.1f}" if best else "-"
        name = best[0] if best else "-"
        roofline = f"{case['roofline_percent']:.0f}" if case.get("roofline_percent") is not None else "-"
        marks = "".join(mark for mark, on in (("c", case.get("clock_moved")), ("e", case.get("mode") != "graph"), ("h", case.get("hot"))) if on)
        verified = "yes" if case.get("verified") else "**no**"
        cells = [case["id"], f"{case['us']:.1f}", f"{case['gb_per_s']:.0f}", f"{case['tflop_per_s']:.1f}", roofline, reference, name, ratio, verified, marks]
        rows.append("| " + " | ".join(cells) + " |")
    if not rows:
        return []
    head = ["", "## Cases", "", "Medians; times faster with its bootstrap 95 % interval. Marks: c, the clock moved by more than 2 %; e, launched one by "
            "one and not as a graph; h, the sets fit into twice the L2 cache.", "",
            "| case | us | GB/s | TFLOP/s | % of roofline | PyTorch us | fastest way | times faster | right | |",
            "|---|---:|---:|---:|---:|---:|---|---:|---|---|"]
    return head + rows


def _emulated(cases):
    rows = []
    for case in cases:
        if case.get("verified") is None:
            continue
        torch = ", ".join(case.get("torch_ways", [])) or "-"
        rows.append(f"| {case['id']} | {'yes' if case['verified'] else '**no**'} | {case.get('error', 0):.1e} | {torch} |")
    if not rows:
        return []
    return ["", "## Cases", "", "Largest error of a result beside the CPU backend's, and PyTorch's ways that agree (on the CPU, where it is here).", "",
            "| case | right | error | PyTorch |", "|---|---|---:|---|"] + rows
