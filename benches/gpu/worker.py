"""The process that runs cases: our library and PyTorch in it, one stream, the same memory. It prints lines of JSON.

It is started anew by bench.py where a fault has made the device unusable; exit code STICKY says so.
"""
import gc
import json
import math
import os
import statistics
import sys
import time
import zlib

import cases as all_cases
import library
import reference
import stats
import timing

STICKY = 17
# Sets of inputs at most: beyond, more do not make small cases colder.
MOST_SETS = 64
# Passes under which clocks are read.
LOAD = 3
# One rounding of a bf16 result. An f32 result is a sum, in another order on each side: 64 of its own.
BF16, F32 = 2.0 ** -8, 64 * 2.0 ** -24
EXCUSED = 8
# How far, by the norm, a way of PyTorch's may be from the right values to be the same function: 16 roundings. Weights that
# are rounded, and masks that differ where a sum is nearly zero, stay below; another scale or order does not.
SAME_FUNCTION = 16


def say(event, **fields):
    sys.stdout.write(json.dumps({"event": event, **fields}) + "\n")
    sys.stdout.flush()


def keep_lines_apart():
    """What libraries print goes to standard error, so that only our lines are on standard output."""
    lines = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    sys.stdout = lines


def short(error):
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:400]


def distance(found, expected):
    """Largest error of the largest element, and the norm of the error over the norm. NaN is infinitely far away."""
    found, expected = found.double(), expected.double()
    difference = found - expected
    largest = max(expected.abs().max().item(), 1e-30)
    norm = max(expected.norm().item(), 1e-30)
    pair = difference.abs().max().item() / largest, difference.norm().item() / norm
    return tuple(math.inf if math.isnan(x) else x for x in pair)


def verify(ours, expected, theirs):
    """Compares results by name with the right ones: each at most twice as wrong as the worst of PyTorch's ways, which excuse
    no more than EXCUSED roundings, or a few roundings. Gives what is wrong, or nothing, and the largest errors of both.
    `theirs` is a list of dictionaries."""
    wrong, errors = [], {"ours": 0.0, "reference": 0.0}
    for name, right in expected.items():
        if name not in ours:
            wrong.append(f"{name} is missing")
            continue
        if tuple(ours[name].shape) != tuple(right.shape):
            wrong.append(f"{name} has shape {tuple(ours[name].shape)}, not {tuple(right.shape)}")
            continue
        rounding = BF16 if str(ours[name].dtype).endswith("bfloat16") else F32
        mine = distance(ours[name], right)
        others = [distance(results[name], right) for results in theirs if name in results]
        for i, (what, slack) in enumerate((("largest error", 2), ("norm of the error", 1))):
            excuse = min(2 * max((pair[i] for pair in others if math.isfinite(pair[i])), default=0.0), EXCUSED * rounding)
            allowed = excuse + slack * rounding
            if not mine[i] <= allowed:
                wrong.append(f"{name}: {what} {mine[i]:.2e}, allowed {allowed:.2e}")
        errors["ours"] = max(errors["ours"], mine[0])
        errors["reference"] = max([errors["reference"], *(pair[0] for pair in others)])
    # JSON has no infinity.
    return wrong, {name: error if math.isfinite(error) else None for name, error in errors.items()}


class Ours:
    """Our launches on prepared sets."""

    def __init__(self, lib, handle, sets):
        self.lib, self.handle, self.sets = lib, handle, sets
        lib("launch", handle=handle, count=sets)
        try:
            lib("capture", handle=handle)
            self.mode, self.why = "graph", None
        except library.LibraryError as error:
            self.mode, self.why = "eager", short(error)

    def __call__(self, passes):
        if self.mode == "graph":
            self.lib("replay", handle=self.handle, count=passes)
        else:
            self.lib("launch", handle=self.handle, count=passes * self.sets)


class Theirs:
    """One of PyTorch's ways on all sets, as a graph where it can be captured."""

    def __init__(self, torch, way, sets, stream):
        self.way, self.sets, self.results = way, sets, None
        # The first calls choose algorithms and compile.
        for _ in range(2):
            self.eagerly()
        stream.synchronize()
        self.graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(self.graph, stream=stream):
                self.results = [way.run(i) for i in range(sets)]
            self.mode, self.why = "graph", None
            self.graph.replay()
            stream.synchronize()
        except Exception as error:
            self.mode, self.why, self.graph = "eager", short(error), None
            stream.synchronize()

    def eagerly(self):
        # All results are kept until the pass is over, so that none is written over another's.
        self.results = [self.way.run(i) for i in range(self.sets)]

    def __call__(self, passes):
        for _ in range(passes):
            if self.mode == "graph":
                self.graph.replay()
            else:
                self.eagerly()


def sets_for(work_bytes, cache):
    """How many sets of inputs and results are twice the cache, two at least."""
    return min(MOST_SETS, max(2, math.ceil(2 * cache / max(work_bytes, 1))))


def time_case(torch, lib, case, machine, seconds, seed):
    """A line for a case on hardware."""
    stream = torch.cuda.ExternalStream(machine["stream"])
    spec, dtype = case["case"], case["dtype"]
    work = lib("describe", case=spec, dtype=dtype)
    count = sets_for(work["bytes"], machine["cache"])
    prepared = lib("prepare", case=spec, dtype=dtype, sets=count, seed=seed)
    handle = prepared["handle"]
    sets = [library.views(torch, tensors) for tensors in prepared["inputs"]]
    try:
        # PyTorch puts its work on our stream: both are ordered by it, and by the same events.
        with torch.cuda.stream(stream):
            line = timed(torch, lib, case, work, handle, sets, machine, stream, seconds, seed)
            # Graphs and their memory go before the right values are made.
            gc.collect()
            line |= verified(torch, lib, case, handle, work["in_place"], sets, list(line["reference"]))
            return line
    finally:
        sets.clear()
        gc.collect()
        try:
            lib("close", handle=handle)
        except library.LibraryError as error:
            say("trouble", text=short(error))
        torch.cuda.empty_cache()


def timed(torch, lib, case, work, handle, sets, machine, stream, seconds, seed):
    """The part of the line that is measured."""
    runners, left_out, count = {"ours": Ours(lib, handle, len(sets))}, {}, len(sets)
    try:
        ways = reference.build(torch, case, sets).ways
    except Exception as error:
        ways, left_out["all"] = {}, short(error)
    for name, way in ways.items():
        try:
            runners[name] = Theirs(torch, way, count, stream)
        except Exception as error:
            left_out[name] = short(error)
            check_device(torch)
    sensors = machine["sensors"]
    before = sensors_under_load(sensors, runners["ours"], stream)
    times = timing.measure(runners, timing.Events(torch, stream), seconds / 3, seed)
    after = sensors_under_load(sensors, runners["ours"], stream)
    return measured(case, work, count, times, machine["peaks"]) | {
        "clock": {"before": before, "after": after}, "clock_moved": timing.clock_moved(before, after),
        "hot": count * work["bytes"] < 2 * machine["cache"], "mode": runners["ours"].mode,
        "modes": {name: runner.mode for name, runner in runners.items()},
        "eager_because": {name: runner.why for name, runner in runners.items() if runner.why}, "left_out": left_out}


def sensors_under_load(sensors, run, stream):
    """Clocks while the device works, or has just worked."""
    run(LOAD)
    found = sensors.read()
    stream.synchronize()
    return found


def measured(case, work, sets, times, peaks):
    """The numbers of a line: medians, rates by the formulas, ratios with intervals."""
    per_launch = {name: [t / sets for t in passes] for name, passes in times.items()}
    ours = per_launch.pop("ours")
    median = statistics.median(ours)
    line = {
        "us": median * 1e6, "us_least": min(ours) * 1e6, "bytes": work["bytes"], "flops": work["flops"], "sets": sets, "rounds": len(ours),
        "gb_per_s": work["bytes"] / median / 1e9, "tflop_per_s": work["flops"] / median / 1e12, "roofline_percent": None,
        "rounds_us": {"ours": [round(t * 1e6, 3) for t in ours]}, "reference": {},
    }
    if peaks:
        line["roofline_percent"] = 100 * stats.least_seconds(work, peaks, case["dtype"]) / median
    for name, theirs in per_launch.items():
        line["reference"][name] = {"us": statistics.median(theirs) * 1e6, "us_least": min(theirs) * 1e6, **stats.compare(theirs, ours)}
        line["rounds_us"][name] = [round(t * 1e6, 3) for t in theirs]
    return line


def verified(torch, lib, case, handle, in_place, sets, timed):
    """Whether what was timed is right. A case that writes its inputs is run once more from fresh ones."""
    first = library.views(torch, lib("fresh", handle=handle)["inputs"]) if in_place else sets[0]
    if in_place:
        sets.clear()
    plain = {**case, "compile": False}
    made = reference.build(torch, plain, [first])
    expected, theirs = made.expected(), []
    for name, way in made.ways.items():
        if name in timed:
            try:
                theirs.append(way.collect(way.run(0)))
            except Exception:
                # It was timed: then its errors are not needed to know ours.
                check_device(torch)
    results = library.views(torch, lib("results", handle=handle)["results"])
    torch.cuda.synchronize()
    wrong, errors = verify(results, expected, theirs)
    return {"verified": not wrong, "errors": errors, **({"why": "; ".join(wrong)} if wrong else {})}


def check_device(torch):
    """Ends the process if a fault has made the device unusable."""
    try:
        torch.cuda.synchronize()
    except Exception as error:
        say("sticky", why=short(error))
        sys.exit(STICKY)


def check_case(torch, lib, case, seed):
    """A line for a case on the emulated device: our results beside the CPU backend's and, where it is here, PyTorch's."""
    spec, dtype = case["case"], case["dtype"]
    work = lib("describe", case=spec, dtype=dtype)
    prepared = lib("prepare", case=spec, dtype=dtype, sets=2, seed=seed)
    handle = prepared["handle"]
    try:
        found = lib("check", handle=handle)["results"]
        # The path that is timed on hardware: both sets, as a graph.
        ours = Ours(lib, handle, 2)
        ours(1)
        line = {"verified": True, "bytes": work["bytes"], "flops": work["flops"], "sets": 2, "mode": ours.mode,
                "error": max(result["error"] for result in found), "torch_ways": []}
        if torch:
            line |= beside_torch(torch, lib, case, handle, prepared["inputs"][0], work["in_place"])
        return line
    finally:
        lib("close", handle=handle)


def beside_torch(torch, lib, case, handle, inputs, in_place):
    """Our results on the emulated device beside PyTorch's on the CPU: this is what checks reference.py."""
    if in_place:
        inputs = lib("fresh", handle=handle)["inputs"]
    dtypes = {"f32": torch.float32, "bf16": torch.bfloat16, "i32": torch.int32}

    def read(tensor, is_input):
        values = lib("read", handle=handle, name=tensor["name"], input=is_input)["values"]
        return torch.tensor(values, dtype=torch.float64).to(dtypes[tensor["dtype"]]).reshape(tensor["shape"])

    made = reference.build(torch, case, [{tensor["name"]: read(tensor, True) for tensor in inputs}])
    expected = made.expected()
    theirs = {name: way.collect(way.run(0)) for name, way in made.ways.items()}
    listed = lib("results", handle=handle)["results"]
    # Of a case that has run in place on its first set, the results are its inputs now.
    ours = {tensor["name"]: read(tensor, in_place) for tensor in listed}
    wrong, errors = verify(ours, expected, [])
    for way, results in theirs.items():
        for name, result in results.items():
            far = distance(result, expected[name])[1]
            rounded = case["dtype"] == "bf16" or str(result.dtype).endswith("bfloat16")
            if not far <= SAME_FUNCTION * (BF16 if rounded else F32):
                wrong.append(f"PyTorch's {way} is another function: {name} is {far:.2e} away")
    return {"torch_ways": list(theirs), "torch_error": errors["ours"], "verified": not wrong, **({"why": "; ".join(wrong)} if wrong else {})}


def import_torch(needed):
    try:
        import torch
        return torch
    except ImportError:
        if needed:
            raise
        return None


def set_flags(torch):
    """Both sides sum in float32 and round once; gives what was set."""
    wanted = {"backends.cuda.matmul.allow_tf32": False, "backends.cudnn.allow_tf32": False, "backends.cudnn.benchmark": True,
              "backends.cuda.matmul.allow_bf16_reduced_precision_reduction": False}
    found = {}
    for path, value in wanted.items():
        owner, _, name = path.rpartition(".")
        try:
            target = torch
            for part in owner.split("."):
                target = getattr(target, part)
            setattr(target, name, value)
            found[path] = value
        except Exception as error:
            found[path] = short(error)
    return found


def open_machine(settings):
    """The library, PyTorch or nothing, and what is known of the machine; says the last."""
    emulated = settings["device"] == "emulated"
    torch = import_torch(not emulated) if settings["torch"] else None
    machine = {}
    if torch and not emulated:
        torch.cuda.init()
        properties = torch.cuda.get_device_properties(0)
        machine["cache"] = getattr(properties, "L2_cache_size", 0) or 50 << 20
        machine["flags"] = set_flags(torch)
        machine["cudnn"] = str(torch.backends.cudnn.version())
    lib = library.Library(settings["library"])
    opened = lib("open", device=settings["device"])
    if torch:
        machine |= {"torch": torch.__version__, "cuda": torch.version.cuda}
    machine |= {"emulated": opened["emulated"], "peaks": opened["peaks"], "nvrtc": opened["nvrtc"],
                "multiprocessors": opened["multiprocessors"], "compute_capability": opened["compute_capability"],
                "driver": ".".join(map(str, opened["driver_version"])), "python": sys.version.split()[0]}
    say("machine", device=opened["name"], **machine)
    # What was imported stays: collections between cases need not look at it.
    gc.freeze()
    sensors = None if emulated else timing.Sensors()
    return torch, lib, {**machine, "stream": opened["stream"], "sensors": sensors}


def main():
    """Reads settings as JSON on standard input, runs the cases that they name, says a line for each."""
    settings = json.load(sys.stdin)
    keep_lines_apart()
    torch, lib, machine = open_machine(settings)
    known = {all_cases.identity(case): case for case in (all_cases.toy() if settings["toy"] else all_cases.full())}
    for name in settings["cases"]:
        # Each case has values of its own, the same in every run.
        case, seed = known[name], zlib.crc32(name.encode()) << 8
        say("begin", id=name)
        head = {"id": name, "family": case["family"], "dtype": case["dtype"], "sizes": case["case"]}
        began = time.monotonic()
        try:
            if machine["emulated"]:
                line = check_case(torch, lib, case, seed)
            else:
                line = time_case(torch, lib, case, machine, settings["seconds"], seed)
        except Exception as error:
            line = {"failed": short(error)}
        if not machine["emulated"]:
            line["took_seconds"] = round(time.monotonic() - began, 2)
        say("case", **head, **line)
        if "failed" in line and torch and not machine["emulated"]:
            check_device(torch)
    say("end")


if __name__ == "__main__":
    main()
