"""Interleaved rounds: what is compared runs in every round once, in random order, so that clocks and neighbours are fair."""
import math
import random
import time

# A sample lasts at least this long on the device; events resolve half a microsecond.
SAMPLE_SECONDS = 300e-6
# Clocks that the device waits before a sample's first event, 0.1 ms: the host puts the work behind it meanwhile, so that its own
# time for that is not in the sample.
HEAD_START = 200_000
# Rounds at least, unless even a few take too long.
ROUNDS, FEW_ROUNDS = 20, 5


class Events:
    """Times what is put on a PyTorch stream, the current one, with events before and after it."""

    def __init__(self, torch, stream):
        self.torch, self.stream = torch, stream

    def sample(self, work):
        """Puts work on the stream, and gives what tells its seconds once the stream is done."""
        before, after = (self.torch.cuda.Event(enable_timing=True) for _ in range(2))
        self.torch.cuda._sleep(HEAD_START)
        before.record(self.stream)
        work()
        after.record(self.stream)
        return lambda: before.elapsed_time(after) * 1e-3

    def wait(self):
        self.stream.synchronize()


def repeats(seconds):
    """How often work of this length makes a sample."""
    return max(1, math.ceil(SAMPLE_SECONDS / max(seconds, 1e-9)))


def measure(runners, timer, budget, seed=0, now=time.monotonic, warm=0.5):
    """Seconds a pass of each runner, a list with a value a round.

    `runners` are functions that put a number of passes on the stream. They take turns for `warm` seconds first, until clocks have
    settled. There are ROUNDS at least, and more until `budget` seconds are over; or FEW_ROUNDS, if three budgets are.
    """
    counts, numbers = {}, random.Random(seed)
    for name, run in runners.items():
        # The first of two pays for what is done once.
        for _ in range(2):
            seconds = timer.sample(lambda: run(1))
            timer.wait()
        counts[name] = repeats(seconds())

    def one_round():
        order = list(runners)
        numbers.shuffle(order)
        samples = {name: timer.sample(lambda run=runners[name], n=counts[name]: run(n)) for name in order}
        timer.wait()
        return {name: seconds() / counts[name] for name, seconds in samples.items()}

    began = now()
    while now() - began < warm:
        one_round()
    times, began = {name: [] for name in runners}, now()
    while True:
        for name, seconds in one_round().items():
            times[name].append(seconds)
        rounds, spent = len(next(iter(times.values()))), now() - began
        if (rounds >= ROUNDS and spent >= budget) or (rounds >= FEW_ROUNDS and spent >= 3 * budget) or rounds >= 10 * ROUNDS:
            return times


class Sensors:
    """Clock, power and temperature of the first GPU, by NVML or else nvidia-smi; nothing where there is neither."""

    def __init__(self):
        try:
            import pynvml
            pynvml.nvmlInit()
            self.nvml, self.gpu = pynvml, pynvml.nvmlDeviceGetHandleByIndex(0)
        except Exception:
            self.nvml = None

    def read(self):
        try:
            if self.nvml:
                n, gpu = self.nvml, self.gpu
                clock, power = n.nvmlDeviceGetClockInfo(gpu, n.NVML_CLOCK_SM), n.nvmlDeviceGetPowerUsage(gpu) / 1000
                return {"sm_mhz": float(clock), "watts": power, "celsius": float(n.nvmlDeviceGetTemperature(gpu, n.NVML_TEMPERATURE_GPU))}
            import subprocess
            query = ["nvidia-smi", "-i", "0", "--query-gpu=clocks.sm,power.draw,temperature.gpu", "--format=csv,noheader,nounits"]
            fields = subprocess.run(query, capture_output=True, text=True, timeout=5, check=True).stdout.split(",")
            return dict(zip(("sm_mhz", "watts", "celsius"), map(float, fields)))
        except Exception:
            return {}


def clock_moved(before, after):
    """Whether the clock changed by more than 2 %: such a case's absolute times are of no one clock."""
    a, b = before.get("sm_mhz"), after.get("sm_mhz")
    return a is not None and b is not None and abs(a - b) > 0.02 * max(a, b)
