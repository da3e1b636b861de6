#!/usr/bin/env python3
"""Our kernels on this machine: are they right, and how fast beside PyTorch. See README.md.

    python3 bench.py --library libgpu_bench.so --program pretext --out DIR [--minutes 7.5]
    python3 bench.py --device emulated ...     toy sizes, results checked, no times; without PyTorch too
"""
import argparse
import fnmatch
import glob
import hashlib
import json
import os
import signal
import subprocess
import sys
import time

import cases as all_cases
import results
import supervise

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
# Seconds that a worker may take to start, a case at most, and one for which PyTorch compiles.
START_LIMIT, CASE_LIMIT, COMPILE_LIMIT = 120, 45, 120
# Exit codes.
GOOD, WRONG, CUT_SHORT = 0, 1, 3


class CutShort(Exception):
    """Somebody asked to stop."""


def arguments(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cuda", "emulated"), default="cuda")
    parser.add_argument("--library", default=os.path.join(ROOT, "target/release/libgpu_bench.so"), help="libgpu_bench.so")
    parser.add_argument("--program", default=os.path.join(ROOT, "target/release/pretext"), help="pretext")
    parser.add_argument("--golden", default=os.path.join(ROOT, "emulator/golden"),
                        help="the folder of recorded instructions to replay; where there are none, they are recorded")
    parser.add_argument("--out", required=True, help="the folder of results: a run goes on with what is there")
    parser.add_argument("--minutes", type=float, default=7.5, help="for everything; what is not reached is left for the next run")
    parser.add_argument("--seconds", type=float, default=3.0, help="for a case, of which a third is timed")
    parser.add_argument("--check", default="all", help="families whose kernels are checked first: all, none, or names with commas")
    parser.add_argument("--check-seconds", type=float, default=150.0, help="for that at most")
    parser.add_argument("--only", default="*", help="cases whose names fit a pattern: '*conv2d*'")
    parser.add_argument("--list", action="store_true", help="print the names of the cases and stop")
    parser.add_argument("--no-torch", action="store_true", help="on the emulated device: leave PyTorch out although it is here")
    parser.add_argument("--commit", help="what the library was built from; by default what git says of this checkout")
    return parser.parse_args(argv)


def commit():
    def git(*words):
        return subprocess.run(["git", "-C", ROOT, *words], capture_output=True, text=True, check=True).stdout.strip()
    try:
        return git("rev-parse", "--short=12", "HEAD") + ("-changed" if git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def digest(path):
    with open(path, "rb") as file:
        return hashlib.sha256(file.read()).hexdigest()[:16]


def where(device):
    """The device's name, so that figures of two kinds of GPU are never taken for one."""
    if device == "emulated":
        return device
    query = ["nvidia-smi", "-i", "0", "--query-gpu=name", "--format=csv,noheader"]
    try:
        return subprocess.run(query, capture_output=True, text=True, timeout=60, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return device


def stop(number, _):
    raise CutShort(signal.Signals(number).name)


class Run:
    """One run of the benchmark."""

    def __init__(self, args):
        self.args = args
        os.makedirs(args.out, exist_ok=True)
        self.deadline = time.monotonic() + 60 * args.minutes
        self.lines = results.Lines(os.path.join(args.out, "results.jsonl"))
        self.key = {"commit": args.commit or commit(), "library": digest(args.library), "where": where(args.device)}
        self.append = supervise.keyed(self.lines, self.key)
        known = all_cases.toy() if args.device == "emulated" else all_cases.full()
        self.cases = {all_cases.identity(case): case for case in known}
        self.names = [name for name in self.cases if fnmatch.fnmatch(name, args.only)]
        self.right = True

    def checks(self):
        """Kernels against their references, and single instructions against what another device recorded."""
        args, past = self.args, results.of_key(self.lines.read(), self.key)
        deadline = min(self.deadline, time.monotonic() + args.check_seconds)
        if args.check == "none":
            return
        with open(os.path.join(args.out, "checks.log"), "ab") as log:
            checked = {line["family"] for line in past if line.get("event") == "check" and not line.get("error")}
            if args.check == "all" and len(checked) > 1:
                print(f"{len(checked)} families were checked before", file=sys.stderr)
            else:
                for family in [None] if args.check == "all" else args.check.split(","):
                    command = [args.program, "kernels", "check", *([family] if family else []), "--device", args.device, "--json"]
                    self.right &= supervise.check_kernels(supervise.Program(command, log), self.append, deadline)
            seen = {line.get("file") for line in past if line.get("event") == "instructions" and not line.get("error")}
            golden = sorted(glob.glob(os.path.join(args.golden, "*.safetensors")))
            record = [args.program, "kernels", "record", "--device", args.device, "--json"]
            tasks = [(file, record + ["--replay", file], "compared with") for file in golden]
            out = os.path.join(args.out, "instructions.safetensors")
            for file, command, what in tasks or [(out, record + ["--out", out], "recorded in")]:
                if os.path.basename(file) not in seen:
                    self.right &= supervise.instructions(supervise.Program(command, log), file, what, self.append, deadline)

    def limit(self, name):
        if name is None:
            return START_LIMIT
        return COMPILE_LIMIT if self.cases[name].get("compile") else CASE_LIMIT

    def time(self):
        """Runs the cases that no earlier run has done; gives how many were not reached."""
        args = self.args
        done = results.done(self.lines.read(), self.key)
        todo = [name for name in self.names if name not in done]
        print(f"{len(todo)} cases to run, {len(self.names) - len(todo)} done before", file=sys.stderr)
        settings = {"device": args.device, "library": os.path.abspath(args.library), "toy": args.device == "emulated",
                    "seconds": args.seconds, "torch": not args.no_torch}
        with open(os.path.join(args.out, "worker.log"), "ab") as log:
            def start(names):
                return supervise.Program([sys.executable, os.path.join(HERE, "worker.py")], log, json.dumps({**settings, "cases": names}))
            left = supervise.run_cases(todo, start, self.said, self.deadline, self.limit)
        return len(left)

    def said(self, line):
        self.append(line if "family" in line or line["event"] != "case" else {**line, "family": self.cases[line["id"]]["family"]})
        if line["event"] == "case":
            outcome = "failed: " + line["failed"] if "failed" in line else "right" if line["verified"] else "WRONG: " + line["why"]
            print(f"{line['id']}: {outcome}", file=sys.stderr)

    def report(self, note):
        path = os.path.join(self.args.out, "table.md")
        print(supervise.summary(path, self.lines, self.key, len(self.names), note))
        cases = [case for case in results.latest(self.lines.read(), self.key) if case["id"] in self.names]
        return self.right and all(case.get("verified") for case in cases)


def main():
    args = arguments()
    if args.list:
        for case in all_cases.toy() if args.device == "emulated" else all_cases.full():
            print(all_cases.identity(case))
        return GOOD
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    run, note, cut = Run(args), "", False
    if args.device == "emulated":
        print(results.EMULATED, file=sys.stderr)
    try:
        run.checks()
        left = run.time()
        if left and time.monotonic() < run.deadline:
            run.right, note = False, f"; workers cannot go on, {left} are left: see worker.log"
        elif left:
            cut, note = True, f"; the time was over with {left} to go: run again to go on"
    except CutShort as signal_name:
        cut, note = True, f"; cut short by {signal_name}: run again to go on"
    right = run.report(note)
    return WRONG if not right else CUT_SHORT if cut else GOOD


if __name__ == "__main__":
    sys.exit(main())
