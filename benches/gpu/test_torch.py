"""Tests that need PyTorch, on the CPU, and the built library: a rehearsal of the hardware path on the emulated device."""
import contextlib
import ctypes
import gc
import os
import struct
import sys
import time
import types
import unittest
from unittest import mock

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)

import cases
import library
import timing
import worker

try:
    import torch
except ImportError:
    torch = None
LIBRARY = os.path.join(os.path.dirname(os.path.dirname(HERE)), "target/release/libgpu_bench.so")


@unittest.skipUnless(torch, "needs PyTorch")
class Views(unittest.TestCase):
    def view(self, raw, shape, dtype):
        self.memory = ctypes.create_string_buffer(raw, len(raw))
        return library.view(torch, ctypes.addressof(self.memory), shape, dtype, library.CPU)

    def test_memory_is_seen_in_its_type_and_shape(self):
        seen = self.view(struct.pack("6f", *range(6)), [2, 3], "f32")
        self.assertEqual((seen.dtype, seen.tolist()), (torch.float32, [[0, 1, 2], [3, 4, 5]]))
        self.assertEqual(seen.stride(), (3, 1))
        seen = self.view(struct.pack("4i", 7, -1, 2, 3), [4], "i32")
        self.assertEqual((seen.dtype, seen.tolist()), (torch.int32, [7, -1, 2, 3]))
        seen = self.view(struct.pack("2H", 0x3F80, 0xC020), [2, 1], "bf16")
        self.assertEqual((seen.dtype, seen.tolist()), (torch.bfloat16, [[1.0], [-2.5]]))

    def test_nothing_is_copied(self):
        seen = self.view(struct.pack("2f", 1, 2), [2], "f32")
        seen[1] = 5
        self.assertEqual(struct.unpack("2f", self.memory.raw), (1, 5))


class Stream:
    """The emulated device's stream waits when memory is read: nothing to wait for."""

    def __init__(self, _):
        pass

    def synchronize(self):
        pass


class Event:
    def __init__(self, enable_timing):
        pass

    def record(self, _):
        self.time = time.perf_counter()

    def elapsed_time(self, later):
        return (later.time - self.time) * 1e3


class Graph:
    def replay(self):
        pass


class Sensors:
    def read(self):
        return {"sm_mhz": 1000.0}


@unittest.skipUnless(torch and os.path.exists(LIBRARY), "needs PyTorch and target/release/libgpu_bench.so")
class Rehearsal(unittest.TestCase):
    """`time_case` with a GPU that is not there: the emulated device for us, the CPU for PyTorch, a clock that means nothing."""

    @classmethod
    def setUpClass(cls):
        cls.lib = library.Library(LIBRARY)
        cls.lib("open", device="emulated")
        cls.driver = ctypes.CDLL("libcuda.so")
        gc.freeze()

    def copy(self, tensor):
        """What a view would show, copied."""
        dtype = {"f32": torch.float32, "bf16": torch.bfloat16, "i32": torch.int32}[tensor["dtype"]]
        found = torch.empty(tensor["shape"], dtype=dtype)
        # PyTorch would be on the same stream; here nothing else waits for it.
        self.assertEqual(self.driver.cuCtxSynchronize(), 0)
        size = ctypes.c_size_t(found.numel() * found.element_size())
        self.assertEqual(self.driver.cuMemcpyDtoH_v2(ctypes.c_void_p(found.data_ptr()), ctypes.c_uint64(tensor["address"]), size), 0)
        return found

    def time(self, case, lib=None):
        # Replays on the emulated device are slow: few of them are enough here.
        cuda = {"ExternalStream": Stream, "stream": lambda _: contextlib.nullcontext(), "Event": Event, "CUDAGraph": Graph,
                "graph": lambda graph, stream: contextlib.nullcontext(), "synchronize": lambda: None,
                "_sleep": lambda clocks: None, "empty_cache": lambda: None}
        peaks = {"bytes_per_second": 1e12, "bf16_flops": 1e15, "f32_flops": 1e14}
        machine = {"stream": 1, "cache": 1, "peaks": peaks, "sensors": Sensors()}
        quick = lambda runners, timer, budget, seed: timing.measure(runners, timer, 0.0, seed, warm=0.0)
        fake_timing = types.SimpleNamespace(**{**vars(timing), "measure": quick})
        with mock.patch.multiple(torch.cuda, **cuda), mock.patch.multiple(worker, timing=fake_timing, LOAD=1), \
                mock.patch.object(timing, "ROUNDS", 2), mock.patch.object(timing, "FEW_ROUNDS", 2), mock.patch.object(timing, "SAMPLE_SECONDS", 0.0), \
                mock.patch.object(library, "views", lambda _, tensors: {t["name"]: self.copy(t) for t in tensors}):
            return worker.time_case(torch, lib or self.lib, case, machine, 3.0, 5)

    def test_every_kind_is_timed_and_right(self):
        for case in cases.toy():
            name = cases.identity(case)
            with self.subTest(name):
                line = self.time(case)
                self.assertIs(line["verified"], True, line.get("why"))
                self.assertTrue(line["reference"], f"no way of PyTorch's ran: {line['left_out']}")
                self.assertEqual(line["mode"], "graph")
                self.assertGreater(line["us"], 0)

    def test_a_wrong_result_is_found(self):
        """A device that gives one wrong element, for results of every kind."""
        copy = self.copy
        for case in cases.toy():
            name = cases.identity(case)
            # Inputs of steps are copied under the same names before.
            if case["case"]["kind"] in ("adamw", "sgd") or case["dtype"] == "f32":
                continue
            with self.subTest(name):
                results = set()

                def spying(what, **arguments):
                    answer = self.lib(what, **arguments)
                    if what == "results":
                        results.update(t["address"] for t in answer["results"])
                    return answer

                def spoiled(tensor):
                    found = copy(tensor)
                    if tensor["address"] in results:
                        found.view(-1)[found.numel() // 2] += found.abs().max() * 0.05 + 0.05
                    return found

                with mock.patch.object(self, "copy", spoiled):
                    self.assertIs(self.time(case, spying)["verified"], False)


if __name__ == "__main__":
    unittest.main()
