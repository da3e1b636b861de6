"""Starts programs, reads their lines as they come, and ends them in time: a hung or crashed one costs no result."""
import json
import os
import queue
import subprocess
import threading
import time

import results


class Program:
    """A program whose standard output is lines of JSON; its standard error goes to a log."""

    def __init__(self, command, log, text=None, env=None):
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, env=env, start_new_session=True)
        self.lines = queue.Queue()
        threading.Thread(target=self._feed, args=(text,), daemon=True).start()
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _feed(self, text):
        try:
            if text is not None:
                self.process.stdin.write(text.encode())
            self.process.stdin.close()
        except OSError:
            pass

    def _read(self):
        with self.process.stdout as output:
            for raw in output:
                try:
                    line = json.loads(raw)
                except ValueError:
                    continue
                if isinstance(line, dict):
                    self.lines.put(line)
        self.lines.put(None)

    def next(self, seconds):
        """The next line; None at the end of the output. queue.Empty if none comes in time."""
        return self.lines.get(timeout=max(seconds, 0.01))

    def end(self):
        """Kills it, if it still runs, and gives its exit code."""
        if self.process.poll() is None:
            self.process.kill()
        self.reader.join(timeout=5)
        return self.process.wait()


def run_cases(names, start, append, deadline, limit, now=time.monotonic, restarts=5):
    """Runs cases in workers until all are done or the deadline is over; gives the names that were not reached.

    `start(names)` starts a Program for them, which says {"event": "begin" or "case", "id"} and at last "end". Every other
    line is appended as it is. A case without an answer after `limit(name)` seconds, or in which the worker dies, is
    appended as failed, and a new worker goes on behind it.
    """
    left = list(names)
    while left and now() < deadline and restarts >= 0:
        program, current, began, reason = start(left), None, now(), None
        # Before the first case the worker imports PyTorch and starts the device.
        allowed = limit(None)
        try:
            while reason is None:
                wait = min(deadline, began + allowed) - now()
                try:
                    line = program.next(wait) if wait > 0 else None
                except queue.Empty:
                    line = {}
                if line == {} or wait <= 0:
                    reason = "cut short: the time is over" if now() >= deadline else f"no answer within {allowed:.0f} s"
                elif line is None:
                    reason = f"the worker died with exit code {program.process.wait()}"
                elif line["event"] == "end":
                    return left
                elif line["event"] == "begin":
                    current, began, allowed = line["id"], now(), limit(line["id"])
                else:
                    append(line)
                    if line["event"] == "case":
                        left.remove(line["id"])
                        current, began, allowed = None, now(), limit(None)
        finally:
            program.end()
        if now() >= deadline:
            break
        restarts -= 1
        if current is not None:
            append({"event": "case", "id": current, "failed": reason})
            left.remove(current)
        else:
            append({"event": "trouble", "text": reason})
    return left


def check_kernels(program, append, deadline, now=time.monotonic):
    """Appends the lines of `pretext kernels check --json`; gives whether it came to its end and found nothing wrong."""
    wrong = False
    try:
        while True:
            line = program.next(deadline - now()) if now() < deadline else {}
            if line is None:
                code = program.process.wait()
                if code != 0 and not wrong:
                    append({"event": "checks", "text": f"pretext kernels check ended with exit code {code}: see checks.log"})
                return code == 0
            if line == {}:
                raise queue.Empty
            if line.get("event") == "check":
                wrong |= bool(line.get("error"))
                append({key: line[key] for key in ("event", "family", "cases", "error", "seconds", "device") if key in line})
    except queue.Empty:
        append({"event": "checks", "text": "pretext kernels check was cut short: families without a line were not checked"})
        return False
    finally:
        program.end()


def instructions(program, file, what, append, deadline, now=time.monotonic):
    """Runs `pretext kernels record`, to record or to replay; appends one line about it, and gives whether it went well."""
    differ, seen, code = [], 0, None
    try:
        while code is None:
            line = program.next(deadline - now()) if now() < deadline else {}
            if line is None:
                code = program.process.wait()
            elif line == {}:
                raise queue.Empty
            elif line.get("event") == "replayed":
                seen += 1
                differ += [line["instruction"]] if line.get("error") else []
            elif line.get("event") == "recorded":
                seen = line.get("instructions", 0)
        text = f"{seen} instructions {what} {os.path.basename(file)}"
        if differ:
            text += ", not the same: " + ", ".join(differ)
        elif code != 0:
            text = f"pretext kernels record ended with exit code {code}: see checks.log"
    except queue.Empty:
        code, text = 1, f"pretext kernels record was cut short ({os.path.basename(file)})"
    finally:
        program.end()
    append({"event": "instructions", "file": os.path.basename(file), "text": text, "error": code != 0})
    return code == 0


def keyed(lines, key):
    """Appends to a file with the key in each line."""
    return lambda line: lines.append({**line, **key})


def summary(path, lines, key, planned, note):
    """Writes the page, whole or not at all, and gives it."""
    text = results.markdown(lines.read(), key, planned, note)
    temporary = f"{path}.tmp"
    with open(temporary, "w", encoding="utf-8") as file:
        file.write(text)
    os.replace(temporary, path)
    return text
