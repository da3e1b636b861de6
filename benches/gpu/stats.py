"""Medians, confidence intervals and geometric means, in plain Python."""
import math
import random
import statistics


def bootstrap_median(values, confidence=0.95, resamples=2000, seed=0):
    """The percentile interval of the median: (low, high). The same values give the same interval."""
    if not values:
        raise ValueError("an interval needs at least one value")
    numbers = random.Random(seed)
    medians = sorted(statistics.median(numbers.choices(values, k=len(values))) for _ in range(resamples))
    tail = (1 - confidence) / 2
    last = resamples - 1
    return medians[math.floor(tail * last)], medians[math.ceil((1 - tail) * last)]


def compare(reference, ours):
    """How many times faster we are: the median over rounds of reference / ours, with its interval."""
    if len(reference) != len(ours):
        raise ValueError("each round needs a time of both")
    ratios = [a / b for a, b in zip(reference, ours)]
    low, high = bootstrap_median(ratios)
    return {"ratio": statistics.median(ratios), "low": low, "high": high}


def geometric_mean(values):
    """None of none. All must be above 0."""
    values = list(values)
    return math.exp(sum(map(math.log, values)) / len(values)) if values else None


def least_seconds(work, peaks, dtype):
    """The roofline: bytes at the memory's full rate or FLOPs at the full rate of the type, whichever takes longer."""
    flops = peaks["bf16_flops"] if dtype == "bf16" else peaks["f32_flops"]
    return max(work["bytes"] / peaks["bytes_per_second"], work["flops"] / flops)
