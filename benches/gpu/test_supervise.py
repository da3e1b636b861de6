"""Workers that crash and hang, programs that end badly, and bench.py cut short: with real processes, no package needed."""
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)

import cases
import results
import supervise

WORKER = r"""
import json, os, sys, time
settings = json.load(sys.stdin)
say = lambda **line: print(json.dumps(line), flush=True)
say(event="machine", device="fake")
print("not a line of JSON", flush=True)
for name in settings["cases"]:
    say(event="begin", id=name)
    if name == "crash": os._exit(9)
    if name == "hang": time.sleep(60)
    say(event="case", id=name, verified=True)
say(event="end")
"""


class Supervised(unittest.TestCase):
    """Workers that crash and hang, with real processes."""

    def setUp(self):
        self.seen, self.starts = [], 0
        self.log = tempfile.TemporaryFile()
        self.addCleanup(self.log.close)

    def run_cases(self, names, seconds=30.0, limit=lambda name: 10.0):
        def start(left):
            self.starts += 1
            return supervise.Program([sys.executable, "-c", WORKER], self.log, json.dumps({"cases": left}))
        left = supervise.run_cases(names, start, self.seen.append, time.monotonic() + seconds, limit)
        return left, {line["id"]: line.get("failed") for line in self.seen if line["event"] == "case"}

    def test_all_are_run(self):
        left, cases_seen = self.run_cases(["a", "b"])
        self.assertEqual((left, cases_seen, self.starts), ([], {"a": None, "b": None}, 1))
        self.assertEqual(self.seen[0], {"event": "machine", "device": "fake"})

    def test_a_crash_costs_one_case(self):
        left, cases_seen = self.run_cases(["a", "crash", "b"])
        self.assertEqual((left, self.starts), ([], 2))
        self.assertEqual((cases_seen["a"], cases_seen["b"]), (None, None))
        self.assertIn("exit code 9", cases_seen["crash"])

    def test_a_hang_costs_one_case(self):
        left, cases_seen = self.run_cases(["hang", "b"], limit=lambda name: 1.0 if name == "hang" else 10.0)
        self.assertEqual((left, self.starts, cases_seen["b"]), ([], 2, None))
        self.assertIn("no answer within 1 s", cases_seen["hang"])

    def test_the_deadline_leaves_the_rest_for_the_next_run(self):
        began = time.monotonic()
        left, cases_seen = self.run_cases(["a", "hang", "b"], seconds=1.5)
        self.assertLess(time.monotonic() - began, 8)
        self.assertEqual((left, cases_seen), (["hang", "b"], {"a": None}))

    def test_restarts_come_to_an_end(self):
        def start(left):
            self.starts += 1
            return supervise.Program([sys.executable, "-c", "raise SystemExit(1)"], self.log, "{}")
        left = supervise.run_cases(["a"], start, self.seen.append, time.monotonic() + 60, lambda name: 10.0, restarts=2)
        self.assertEqual((left, self.starts, {line["event"] for line in self.seen}), (["a"], 3, {"trouble"}))

    def program(self, *lines, code=0, sleep=0):
        said = "".join(f"print(json.dumps({line!r}), flush=True)\n" for line in lines)
        text = f"import json, time\n{said}time.sleep({sleep})\nraise SystemExit({code})"
        return supervise.Program([sys.executable, "-c", text], self.log)

    def test_checks_are_taken_over(self):
        good = {"event": "check", "family": "norm", "cases": 3, "error": None}
        bad = {"event": "check", "family": "pool", "cases": None, "error": "wrong"}
        soon = time.monotonic() + 30
        self.assertTrue(supervise.check_kernels(self.program(good), self.seen.append, soon))
        self.assertFalse(supervise.check_kernels(self.program(good, bad, code=1), self.seen.append, soon))
        self.assertEqual([line["family"] for line in self.seen], ["norm", "norm", "pool"])
        self.assertFalse(supervise.check_kernels(self.program(code=2), self.seen.append, soon))
        self.assertIn("exit code 2", self.seen[-1]["text"])
        self.assertFalse(supervise.check_kernels(self.program(good, sleep=60), self.seen.append, time.monotonic() + 1))
        self.assertIn("cut short", self.seen[-1]["text"])

    def test_instructions_that_differ_are_named(self):
        soon = time.monotonic() + 30
        same, other = {"event": "replayed", "instruction": "a", "error": None}, {"event": "replayed", "instruction": "b", "error": "bit 3"}
        self.assertTrue(supervise.instructions(self.program(same), "x/f", "compared with", self.seen.append, soon))
        self.assertFalse(supervise.instructions(self.program(same, other, code=1), "x/f", "compared with", self.seen.append, soon))
        self.assertEqual([line["text"] for line in self.seen], ["1 instructions compared with f", "2 instructions compared with f, not the same: b"])


class CutShort(unittest.TestCase):
    """bench.py itself, ended by a signal while a case hangs: it writes its page and says so by its exit code."""

    def test_a_signal_leaves_a_page_and_a_run_that_goes_on(self):
        with tempfile.TemporaryDirectory() as folder:
            library, program = (os.path.join(folder, name) for name in ("library.so", "pretext"))
            open(library, "w").close()
            first = cases.identity(cases.toy()[0])
            script = WORKER.replace('name == "hang"', f'name != {first!r}')
            with open(os.path.join(folder, "worker.py"), "w", encoding="utf-8") as file:
                file.write(script)
            main = f"import sys; sys.path.insert(0, {HERE!r}); import bench; bench.HERE = {folder!r}; sys.exit(bench.main())"
            words = ["--device", "emulated", "--check", "none", "--library", library, "--program", program, "--out", folder, "--commit", "c"]
            started = subprocess.Popen([sys.executable, "-c", main, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            for line in started.stderr:
                if first in line:
                    break
            started.send_signal(signal.SIGTERM)
            page, _ = started.communicate(timeout=30)
            self.assertEqual(started.returncode, 3)
            self.assertIn(f"1 of {len(cases.toy())} cases; cut short by SIGTERM", page)
            with open(os.path.join(folder, "table.md"), encoding="utf-8") as file:
                self.assertEqual(file.read().strip(), page.strip())
            kept = results.Lines(os.path.join(folder, "results.jsonl")).read()
            self.assertEqual([line["id"] for line in kept if line["event"] == "case"], [first])


if __name__ == "__main__":
    unittest.main()
