"""Tests of what is computed, kept and shown, with Python's standard library alone: python3 -m unittest discover benches/gpu"""
import ctypes
import json
import math
import os
import statistics
import sys
import tempfile
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)

import cases
import library
import results
import stats
import timing
import worker

LIBRARY = os.path.join(os.path.dirname(os.path.dirname(HERE)), "target/release/libgpu_bench.so")


class Statistics(unittest.TestCase):
    def test_an_interval_holds_the_median_of_what_was_drawn(self):
        """Of 200 samples of 21 normal values, about 95 % have an interval that holds the true median, 0."""
        import random
        numbers, held = random.Random(7), 0
        for trial in range(200):
            values = [numbers.gauss(0, 1) for _ in range(21)]
            low, high = stats.bootstrap_median(values, resamples=400, seed=trial)
            self.assertLessEqual(low, statistics.median(values))
            self.assertGreaterEqual(high, statistics.median(values))
            held += low <= 0 <= high
        self.assertTrue(180 <= held <= 199, held)

    def test_an_interval_is_repeatable_and_of_one_value_a_point(self):
        values = [1.0, 2.0, 5.0, 9.0]
        self.assertEqual(stats.bootstrap_median(values), stats.bootstrap_median(values))
        self.assertEqual(stats.bootstrap_median([3.0]), (3.0, 3.0))
        with self.assertRaises(ValueError):
            stats.bootstrap_median([])

    def test_a_ratio_is_of_rounds_and_not_of_medians(self):
        """A clock that halves in the middle changes both sides of a round: the ratio stays."""
        ours = [1.0] * 10 + [2.0] * 10
        found = stats.compare([3 * t for t in ours], ours)
        self.assertEqual(found, {"ratio": 3.0, "low": 3.0, "high": 3.0})
        with self.assertRaises(ValueError):
            stats.compare([1.0], [1.0, 2.0])

    def test_geometric_means(self):
        self.assertAlmostEqual(stats.geometric_mean([0.5, 2.0]), 1.0)
        self.assertAlmostEqual(stats.geometric_mean([1.0, 8.0, 27.0]), 6.0)
        self.assertIsNone(stats.geometric_mean([]))

    def test_the_roofline_is_the_slower_of_both(self):
        peaks = {"bytes_per_second": 10.0, "bf16_flops": 100.0, "f32_flops": 20.0}
        self.assertEqual(stats.least_seconds({"bytes": 10, "flops": 100}, peaks, "bf16"), 1.0)
        self.assertEqual(stats.least_seconds({"bytes": 10, "flops": 100}, peaks, "f32"), 5.0)


class FakeStream:
    """A device whose work takes known times, and the clock of who waits for it."""

    def __init__(self):
        self.time, self.samples, self.log = 0.0, 0, []

    def runner(self, name, seconds):
        def run(passes):
            self.log.append(name)
            self.time += passes * seconds
        return run

    def sample(self, work):
        before = self.time
        work()
        seconds = self.time - before
        return lambda: seconds

    def wait(self):
        pass


class Rounds(unittest.TestCase):
    def measured(self, times, budget=0.05):
        stream = FakeStream()
        runners = {name: stream.runner(name, seconds) for name, seconds in times.items()}
        return timing.measure(runners, stream, budget, now=lambda: stream.time, warm=0.01), stream

    def test_each_is_timed_in_every_round(self):
        times, stream = self.measured({"ours": 1e-5, "a": 2e-5, "b": 5e-4})
        self.assertEqual({len(values) for values in times.values()}, {len(times["ours"])})
        self.assertGreaterEqual(len(times["ours"]), timing.ROUNDS)
        for name, seconds in (("ours", 1e-5), ("a", 2e-5), ("b", 5e-4)):
            self.assertTrue(all(math.isclose(t, seconds, rel_tol=1e-6) for t in times[name]), name)

    def test_the_order_changes_from_round_to_round(self):
        _, stream = self.measured({"a": 1e-3, "b": 1e-3})
        pairs = {tuple(stream.log[i:i + 2]) for i in range(4, len(stream.log), 2)}
        self.assertTrue({("a", "b"), ("b", "a")} <= pairs, pairs)

    def test_samples_are_long_enough(self):
        for seconds in (1e-6, 7e-5, 2e-4, 1.0):
            n = timing.repeats(seconds)
            self.assertTrue(n * seconds >= timing.SAMPLE_SECONDS and (n == 1 or (n - 1) * seconds < timing.SAMPLE_SECONDS))

    def test_slow_work_has_few_rounds(self):
        times, _ = self.measured({"ours": 0.5, "a": 0.25}, budget=1.0)
        self.assertEqual(len(times["ours"]), timing.FEW_ROUNDS)

    def test_a_clock_that_moved_is_noticed(self):
        self.assertTrue(timing.clock_moved({"sm_mhz": 1980.0}, {"sm_mhz": 1900.0}))
        self.assertFalse(timing.clock_moved({"sm_mhz": 1980.0}, {"sm_mhz": 1965.0}))
        self.assertFalse(timing.clock_moved({}, {"sm_mhz": 1965.0}))

    def test_the_sets_are_twice_the_cache(self):
        cache = 50 << 20
        self.assertEqual(worker.sets_for(100 << 20, cache), 2)
        self.assertEqual(worker.sets_for(10 << 20, cache), 10)
        self.assertEqual(worker.sets_for(1, cache), worker.MOST_SETS)

    def test_a_line_has_the_numbers_of_its_times(self):
        case = {"dtype": "bf16"}
        work = {"bytes": 3e9, "flops": 1e12}
        peaks = {"bytes_per_second": 3e12, "bf16_flops": 1e15, "f32_flops": 1e14}
        line = worker.measured(case, work, 2, {"ours": [4e-3] * 9, "mm": [8e-3] * 9}, peaks)
        self.assertAlmostEqual(line["us"], 2000)
        self.assertAlmostEqual(line["gb_per_s"], 1500)
        self.assertAlmostEqual(line["tflop_per_s"], 500)
        self.assertAlmostEqual(line["roofline_percent"], 50)
        self.assertAlmostEqual(line["reference"]["mm"]["ratio"], 2)
        self.assertIsNone(worker.measured(case, work, 2, {"ours": [4e-3]}, None)["roofline_percent"])


class Cases(unittest.TestCase):
    def test_names_are_unique(self):
        for some in (cases.full(), cases.toy()):
            names = [cases.identity(case) for case in some]
            self.assertEqual(len(names), len(set(names)))

    def test_every_kind_that_is_timed_has_a_toy_in_its_type(self):
        kinds = lambda some: {(case["case"]["kind"], case["dtype"]) for case in some}
        self.assertEqual(kinds(cases.full()) - kinds(cases.toy()), set())

    def test_the_networks_have_their_parameters(self):
        """timm's vit_base_patch16_224 and torchvision's resnet50, each without the classifier."""
        self.assertEqual(sum(cases.vit_parameters()), 85_798_656)
        self.assertEqual(sum(cases.resnet50_parameters()), 25_557_032 - 2048 * 1000 - 1000)

    def test_resnet50_has_23_kinds_of_convolution(self):
        found = cases.resnet50_convolutions()
        self.assertEqual((len(found), len(set(found))), (23, 23))
        self.assertIn((28, 128, 128, 3, 1), found)
        self.assertIn((56, 128, 128, 3, 2), found)
        self.assertIn((224, 3, 64, 7, 2), found)


KEY = {"commit": "c", "library": "l", "where": "gpu"}


def case_line(name, ratio=None, **more):
    line = {"event": "case", "id": name, "family": "f", "verified": True, "us": 10.0, "gb_per_s": 1.0, "tflop_per_s": 1.0,
            "mode": "graph", "reference": {}, **KEY, **more}
    if ratio:
        line["reference"] = {"slow": {"us": 99.0, "ratio": 9.9, "low": 9.8, "high": 10.0},
                             "mm": {"us": 10.0 * ratio, "ratio": ratio, "low": ratio, "high": ratio}}
    return line


class Kept(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        self.lines = results.Lines(os.path.join(self.folder.name, "results.jsonl"))

    def test_half_a_line_costs_that_line_only(self):
        self.lines.append(case_line("a"))
        with open(self.lines.path, "a", encoding="utf-8") as file:
            file.write('{"event": "case", "id": "b"')
        self.lines.append(case_line("c"))
        self.assertEqual([line["id"] for line in self.lines.read()], ["a", "c"])

    def test_done_are_the_cases_of_this_commit_library_and_device(self):
        self.lines.append(case_line("a"))
        self.lines.append(case_line("b", failed="x"))
        self.lines.append(case_line("c") | {"where": "other"})
        self.lines.append(case_line("d") | {"library": "other"})
        self.lines.append(case_line("e", verified=False, why="x"))
        self.assertEqual(results.done(self.lines.read(), KEY), {"a", "e"})
        self.assertEqual(results.done([], KEY), set())

    def test_a_later_line_replaces_a_failure(self):
        lines = [case_line("a", failed="x"), case_line("b"), case_line("a", 2.0)]
        self.assertEqual([(line["id"], "failed" in line) for line in results.latest(lines, KEY)], [("a", False), ("b", False)])

    def test_the_mean_is_over_right_results_and_the_fastest_way(self):
        lines = [case_line("a", 0.5), case_line("b", 2.0), case_line("c", 1000.0, verified=False, why="x"), case_line("d"),
                 case_line("e", 3.0, family="g")]
        means = results.means(results.latest(lines, KEY))
        self.assertAlmostEqual(means["f"][0], 1.0)
        self.assertEqual(means["f"][1], 2)
        self.assertAlmostEqual(means["g"][0], 3.0)

    def test_the_page_says_what_is_wrong_and_what_is_missing(self):
        machine = {"event": "machine", "device": "GPU X", "torch": "2.0", **KEY}
        lines = [machine, case_line("a", 2.0, roofline_percent=41.6), case_line("b", verified=False, why="y: too far"),
                 case_line("c", failed="out of memory"), case_line("d", left_out={"cuDNN": "no kernel"}),
                 {"event": "trouble", "text": "a worker died", **KEY}, {"event": "check", "family": "norm", "cases": 7, **KEY}, {"event": "check", "family": "pool", "error": "bad", **KEY}]
        page = results.markdown(lines, KEY, 9, "; cut short")
        for part in ("GPU X", "torch 2.0", "3 of 9 cases; cut short.", "| f | 1 | 2.00 |", "| 42 | 20.0 | mm | 2.00 [2.00, 2.00] | yes |",
                     "- b: y: too far", "- c: out of memory", "- d: cuDNN: no kernel", "- a worker died", "norm (7)", "**pool is wrong**: bad"):
            self.assertIn(part, page)

    def test_an_emulated_page_has_no_times(self):
        lines = [{"event": "machine", "device": "emulated", "emulated": True, **KEY},
                 {"event": "case", "id": "a", "family": "f", "verified": True, "error": 1e-7, "torch_ways": [], **KEY}]
        page = results.markdown(lines, KEY, 1)
        self.assertIn("Emulated: no times", page)
        for unit in (" us", "GB/s", "TFLOP", "faster"):
            self.assertNotIn(unit, page)


@unittest.skipUnless(os.path.exists(LIBRARY), "needs target/release/libgpu_bench.so")
class Requests(unittest.TestCase):
    """What the library says to wrong requests, for which it needs no device."""

    @classmethod
    def setUpClass(cls):
        cls.lib = library.Library(LIBRARY)

    def test_wrong_requests_are_answered(self):
        matmul = {"kind": "matmul", "m": 2, "n": 3, "k": 4}
        wrong = [
            ("unknown variant `nonsense`", "nonsense", {}),
            ("no case has handle 77", "launch", {"handle": 77, "count": 1}),
            ("missing field `k`", "describe", {"case": {"kind": "matmul", "m": 2, "n": 3}, "dtype": "f32"}),
            ("unknown field `q`", "describe", {"case": {**matmul, "q": 1}, "dtype": "f32"}),
            ("neither f32 nor bf16", "describe", {"case": matmul, "dtype": "f64"}),
            ("neither cuda nor emulated", "open", {"device": "tpu"}),
            ("unknown variant `sideways`", "describe", {"case": {"kind": "ntxent", "direction": "sideways", "pairs": 1, "width": 1}, "dtype": "f32"}),
        ]
        for part, what, more in wrong:
            with self.subTest(part), self.assertRaisesRegex(library.LibraryError, part):
                self.lib(what, **more)

    def test_what_is_no_request_is_answered(self):
        for raw, part in ((None, "null pointer"), (b"{", "not a request"), (b"\xff", "not UTF-8")):
            answer = self.lib._call(raw)
            text = json.loads(ctypes.string_at(answer))["error"]
            self.lib._free(answer)
            self.assertIn(part, text)
        self.lib._free(None)

    def test_the_formulas(self):
        of = lambda dtype, **case: self.lib("describe", case=case, dtype=dtype)
        self.assertEqual(of("bf16", kind="matmul", m=2, n=3, k=4), {"bytes": 52.0, "flops": 48.0, "in_place": False})
        self.assertEqual(of("f32", kind="adamw", sizes=[10, 5])["bytes"], 15 * 28)
        self.assertEqual(of("f32", kind="adamw", sizes=[10, 5], average=True), {"bytes": 15 * 36.0, "flops": 225.0, "in_place": True})
        # ViT-B's heads: 4 N² D FLOPs forward, 10 N² D backward; 8 N D and 16 N D bytes, and lse.
        heads = dict(kind="attention", samples=1, tokens=197, heads=12, size=64)
        forward, backward = (of("bf16", direction=direction, **heads) for direction in ("forward", "backward"))
        self.assertEqual((forward["flops"], backward["flops"]), (12 * 4 * 197 ** 2 * 64, 12 * 10 * 197 ** 2 * 64))
        self.assertEqual((forward["bytes"], backward["bytes"]), (12 * 197 * (8 * 64 + 4), 12 * 197 * (16 * 64 + 4)))
        conv = of("bf16", kind="conv2d", images=1, side=56, channels=64, filters=64, kernel=3, stride=1, **{"pass": "forward"})
        self.assertEqual(conv["flops"], 2 * 56 ** 2 * 64 * 64 * 9)
        # Batch norm reads twice what it writes once: 3 elements forward, 7 backward with a ReLU.
        norm = dict(kind="batch_norm", images=1, side=2, channels=8)
        self.assertEqual([of("bf16", direction=d, **norm)["bytes"] for d in ("forward", "backward")], [2 * 32 * 3, 2 * 32 * 7])


class Tensor:
    """Numbers with the few operations that `worker.distance` and `worker.verify` need of PyTorch's tensors."""

    def __init__(self, values, dtype="torch.float32"):
        self.values, self.dtype, self.shape = list(values), dtype, (len(values),)

    def double(self):
        return self

    def __sub__(self, other):
        return Tensor([a - b for a, b in zip(self.values, other.values)])

    def abs(self):
        return Tensor([abs(x) for x in self.values])

    def max(self):
        return Tensor([math.nan if any(map(math.isnan, self.values)) else max(self.values)])

    def norm(self):
        return Tensor([math.sqrt(sum(x * x for x in self.values))])

    def item(self):
        return self.values[0]


class Verified(unittest.TestCase):
    right = {"y": Tensor([1.0, -2.0, 4.0])}

    def wrong(self, values, theirs=(), dtype="torch.float32"):
        return worker.verify({"y": Tensor(values, dtype)}, self.right, list(theirs))[0]

    def test_a_right_result_is_right(self):
        self.assertEqual(self.wrong([1.0, -2.0, 4.0]), [])
        self.assertEqual(self.wrong([1.0, -2.0, 4.0000001]), [])
        self.assertEqual(self.wrong([1.004, -2.0, 4.01], dtype="torch.bfloat16"), [])

    def test_a_wrong_one_is_not(self):
        for values in ([1.0, -2.0, 4.001], [1.0, -2.0, math.nan], [1.0, math.inf, 4.0], [0.0, 0.0, 0.0], [1.0, -2.0]):
            self.assertTrue(self.wrong(values), values)
        self.assertTrue(self.wrong([1.0, -2.0, 4.1], dtype="torch.bfloat16"))
        self.assertEqual(worker.verify({}, self.right, [])[0], ["y is missing"])

    def test_it_may_be_twice_as_wrong_as_pytorch(self):
        theirs = [{"y": Tensor([1.0, -2.0, 4.00002])}]
        self.assertEqual(self.wrong([1.0, -2.0, 4.00004], theirs), [])
        self.assertTrue(self.wrong([1.0, -2.0, 4.00008], theirs))
        # Of a way that is far off little is taken as an excuse.
        self.assertTrue(self.wrong([1.0, -2.0, 4.001], [{"y": Tensor([1.0, -2.0, 5.0])}]))

    def test_a_way_that_is_nan_excuses_nothing(self):
        self.assertTrue(self.wrong([1.0, -2.0, 5.0], [{"y": Tensor([math.nan] * 3)}]))


if __name__ == "__main__":
    unittest.main()
