"""The clip the project draws itself."""

from itertools import islice

import numpy as np

from stylize.runtime.demo import HEIGHT, WIDTH, draw_demo_frames


def test_demo_is_the_same_every_time_and_moves_smoothly() -> None:
    first, second, third = islice(draw_demo_frames(), 3)
    again = next(draw_demo_frames())
    assert first.shape == (HEIGHT, WIDTH, 3)
    assert first.dtype == np.uint8
    assert np.array_equal(first, again)
    change = np.abs(second.astype(int) - first).mean(), np.abs(third.astype(int) - second).mean()
    assert 0.1 < min(change) <= max(change) < 6
    assert first.std() > 40  # a picture, not a flat colour
