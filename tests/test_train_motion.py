"""Warping and occlusion against what can be worked out by hand."""

import pytest
import torch

from stylize.train.motion import occlusion_from_flows, resize_flow, warp_backward


def _constant_flow(dx: float, dy: float, height: int, width: int) -> torch.Tensor:
    return torch.tensor([float(dx), float(dy)])[None, :, None, None].expand(1, 2, height, width).contiguous()


def test_zero_flow_returns_the_picture_bit_for_bit() -> None:
    picture = torch.rand(2, 3, 37, 53)
    assert torch.equal(warp_backward(picture, torch.zeros(2, 2, 37, 53)), picture)


def test_whole_pixel_shift_moves_pixels_unchanged() -> None:
    picture = torch.rand(1, 3, 12, 16)
    warped = warp_backward(picture, _constant_flow(3, -2, 12, 16))
    assert torch.equal(warped[..., 2:, :-3], picture[..., :-2, 3:])


def test_fractional_shift_of_a_slope_is_exact() -> None:
    # Bilinear sampling is exact on a plane: value = x + 10 y.
    y, x = torch.meshgrid(torch.arange(20.0), torch.arange(30.0), indexing="ij")
    plane = (x + 10 * y)[None, None]
    warped = warp_backward(plane, _constant_flow(0.3, 0.6, 20, 30))
    # float32 has 24 bits and values reach 220.
    torch.testing.assert_close(warped[..., :-1, :-1], plane[..., :-1, :-1] + 0.3 + 6.0, rtol=0, atol=1e-4)


def test_rejects_flow_of_another_size() -> None:
    with pytest.raises(ValueError, match=r"flow has shape \(1, 2, 4, 5\), the image needs \(1, 2, 4, 6\)"):
        warp_backward(torch.zeros(1, 3, 4, 6), torch.zeros(1, 2, 4, 5))


def test_moving_square_hides_what_it_covered() -> None:
    # A square of 10 px moves 4 px to the right: current columns 14..23, previous columns 10..19.
    size, left, side, shift = 40, 14, 10, 4
    square = torch.zeros(1, 1, size, size)
    square[..., 15:25, left : left + side] = 1
    to_previous = torch.cat([-shift * square, torch.zeros_like(square)], dim=1)
    square_before = square.roll(-shift, dims=3)
    to_current = torch.cat([shift * square_before, torch.zeros_like(square)], dim=1)
    visible = occlusion_from_flows(to_previous, to_current)[0, 0]
    # Uncovered background: previous frame shows the square there.
    assert not visible[16:24, left - shift : left].any()
    # Inside of the square and far background are seen in both frames.
    assert visible[17:23, left + 2 : left + side - 2].all()
    assert visible[:10].all()
    assert visible[16:24, 30:].all()


def test_outside_the_frame_counts_as_occluded() -> None:
    flow = _constant_flow(5, 0, 10, 20)
    visible = occlusion_from_flows(flow, -flow)[0, 0]
    assert visible[:, :15].all()
    assert not visible[:, 15:].any()


def test_resized_flow_is_in_pixels_of_the_small_grid() -> None:
    flow, mask = _constant_flow(8, -4, 16, 24), torch.ones(1, 1, 16, 24)
    mask[..., 5, 7] = 0
    small_flow, small_mask = resize_flow(flow, mask, height=4, width=6)
    assert torch.equal(small_flow, _constant_flow(2, -1, 4, 6))
    assert small_mask.sum() == 4 * 6 - 1
    assert small_mask[0, 0, 1, 1] == 0
