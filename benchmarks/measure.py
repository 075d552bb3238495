"""Timing that can be compared: in turn, warmed up, with spread, beside the machine's own roof."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "Case",
    "MachineRoof",
    "Spread",
    "fps_of",
    "machine_roof",
    "measure_in_turn",
    "percentiles_ms",
    "roof_cases",
    "spread_of",
]

# Large enough to be compute bound on any CPU (three 16 MB matrices), 0.1 s on two Zen 4 cores.
_GEMM_SIDE = 2048
# Larger than any last-level cache, so that the copy is one of memory.
_COPY_BYTES = 128 * 2**20


Case = Callable[[], Sequence[float]]
"""Does one round of some work and returns the seconds each frame took, by a monotonic clock."""


@dataclass(frozen=True, kw_only=True)
class Spread:
    """A measured quantity: its median and the middle half of the samples.

    Attributes:
        median: 50th percentile.
        low: 25th percentile.
        high: 75th percentile.
        num_samples: how many samples it rests on.
    """

    median: float
    low: float
    high: float
    num_samples: int


@dataclass(frozen=True, kw_only=True)
class MachineRoof:
    """What the machine did at best, timed in turn with everything else.

    Attributes:
        gemm_gflop_per_second: float32 matrix product of 2048, by NumPy's BLAS.
        copy_gb_per_second: 128 MiB copied, bytes read plus bytes written, 1 GB = 1e9 bytes.
    """

    gemm_gflop_per_second: float
    copy_gb_per_second: float


def spread_of(samples: Sequence[float] | NDArray[np.float64]) -> Spread:
    """Median and quartiles.

    Raises:
        ValueError: no samples.
    """
    if len(samples) == 0:
        raise ValueError("no samples to summarise")
    low, median, high = np.percentile(np.asarray(samples, np.float64), [25, 50, 75])
    return Spread(median=float(median), low=float(low), high=float(high), num_samples=len(samples))


def percentiles_ms(samples_seconds: Sequence[float]) -> tuple[float, float, float]:
    """The 50th, 95th and 99th percentile in milliseconds, linear between samples.

    Raises:
        ValueError: no samples.
    """
    if len(samples_seconds) == 0:
        raise ValueError("no samples to take percentiles of")
    p50, p95, p99 = np.percentile(np.asarray(samples_seconds, np.float64) * 1000, [50, 95, 99])
    return float(p50), float(p95), float(p99)


def measure_in_turn(
    cases: Mapping[str, Case],
    *,
    num_warmup: int,
    num_rounds: int,
    budget_seconds: float = float("inf"),
    clock: Callable[[], float] = time.perf_counter,
    advance: Callable[[str], None] | None = None,
) -> dict[str, list[Sequence[float]]]:
    """Run every case once a round, A B A B, so that a slow minute of the machine hits all alike.

    Args:
        cases: what to run, by name.
        num_warmup: rounds thrown away first.
        num_rounds: rounds to keep.
        budget_seconds: no round begins that would end later, warm-up included; at least one is kept.
        clock: monotonic seconds, for the budget.
        advance: called with the case's name after each run, warm-up included.

    Returns:
        What each run returned, by name, in order.
    """
    started = clock()
    samples: dict[str, list[Sequence[float]]] = {name: [] for name in cases}
    for round_number in range(-num_warmup, num_rounds):
        elapsed_seconds = clock() - started
        num_done = round_number + num_warmup
        if round_number > 0 and elapsed_seconds * (num_done + 1) / num_done > budget_seconds:
            break
        for name, run in cases.items():
            seconds_per_frame = run()
            if round_number >= 0:
                samples[name].append(seconds_per_frame)
            if advance is not None:
                advance(name)
    return samples


def fps_of(rounds: Sequence[Sequence[float]]) -> Spread:
    """Frames per second, one sample a round, from the seconds of each round's frames."""
    return spread_of([len(round_seconds) / sum(round_seconds) for round_seconds in rounds])


def roof_cases() -> dict[str, Case]:
    """A float32 matrix product and a memory copy, to be timed in turn with what they are the roof of."""
    random = np.random.default_rng(0)
    left = random.random((_GEMM_SIDE, _GEMM_SIDE), np.float32)
    right = random.random((_GEMM_SIDE, _GEMM_SIDE), np.float32)
    product = np.empty_like(left)
    source = np.ones(_COPY_BYTES, np.uint8)
    target = np.zeros_like(source)

    def multiply() -> list[float]:
        begin = time.perf_counter()
        np.matmul(left, right, out=product)
        return [time.perf_counter() - begin]

    def copy() -> list[float]:
        begin = time.perf_counter()
        np.copyto(target, source)
        return [time.perf_counter() - begin]

    return {"matrix product": multiply, "memory copy": copy}


def machine_roof(samples: Mapping[str, Sequence[Sequence[float]]]) -> MachineRoof:
    """The best round of each of `roof_cases`.

    Args:
        samples: of `measure_in_turn`, those of other cases included.
    """
    return MachineRoof(
        gemm_gflop_per_second=2 * _GEMM_SIDE**3 / min(map(sum, samples["matrix product"])) / 1e9,
        copy_gb_per_second=2 * _COPY_BYTES / min(map(sum, samples["memory copy"])) / 1e9,
    )
