"""Timing and percentiles, with a clock of the test's own: no test here depends on speed."""

from collections.abc import Sequence

import pytest

from stylize.benchmarks.measure import (
    fps_of,
    machine_roof,
    measure_in_turn,
    percentiles_ms,
    spread_of,
)


class FakeClock:
    """A clock that only the measured work moves."""

    def __init__(self) -> None:
        self.now_seconds = 100.0

    def __call__(self) -> float:
        return self.now_seconds


def test_cases_run_in_turn_and_warm_up_is_thrown_away() -> None:
    order: list[str] = []

    def case(name: str) -> Sequence[float]:
        order.append(name)
        return [float(len(order))]

    samples = measure_in_turn({"a": lambda: case("a"), "b": lambda: case("b")}, num_warmup=1, num_rounds=2)
    assert order == list("ababab")
    assert samples == {"a": [[3.0], [5.0]], "b": [[4.0], [6.0]]}


def test_no_round_would_end_after_the_budget_but_one_is_always_kept() -> None:
    clock = FakeClock()

    def work() -> Sequence[float]:
        clock.now_seconds += 10
        return [10.0]

    cases = {"only": work}
    assert len(measure_in_turn(cases, num_warmup=0, num_rounds=9, budget_seconds=25, clock=clock)["only"]) == 2
    assert len(measure_in_turn(cases, num_warmup=1, num_rounds=9, budget_seconds=0, clock=clock)["only"]) == 1


def test_progress_is_told_after_every_run() -> None:
    told: list[str] = []
    cases = {"a": lambda: [1.0], "b": lambda: [1.0]}
    measure_in_turn(cases, num_warmup=1, num_rounds=2, advance=told.append)
    assert told == list("ababab")


def test_frames_per_second_is_one_sample_a_round() -> None:
    # Two frames in 0.5 s, then two in 1 s.
    spread = fps_of([[0.1, 0.4], [0.5, 0.5]])
    assert (spread.num_samples, spread.median) == (2, pytest.approx(3.0))


def test_percentiles_are_in_milliseconds() -> None:
    # 0 ... 100 ms: the percentile is its own value.
    assert percentiles_ms([index / 1000 for index in range(101)]) == pytest.approx((50, 95, 99))


def test_spread_is_the_middle_half() -> None:
    spread = spread_of([5.0, 1.0, 3.0, 2.0, 4.0])
    assert (spread.low, spread.median, spread.high, spread.num_samples) == (2.0, 3.0, 4.0, 5)


def test_rejects_empty_samples() -> None:
    with pytest.raises(ValueError, match="no samples"):
        spread_of([])
    with pytest.raises(ValueError, match="no samples"):
        percentiles_ms([])


def test_the_roof_is_the_best_round() -> None:
    # 2 * 2048^3 operations in 0.1 s; 128 MiB read and written in 0.02 s.
    roof = machine_roof({"matrix product": [[0.4], [0.1]], "memory copy": [[0.02], [0.03]], "other": [[9.0]]})
    assert roof.gemm_gflop_per_second == pytest.approx(171.798691)
    assert roof.copy_gb_per_second == pytest.approx(13.4217728)
