"""Motion: sampling along a flow, and what is hidden by it.

A flow (N, 2, H, W) holds (dx, dy) in pixels from the grid of the frame at hand into the other frame:
`warp_backward(other, flow)` lies over the frame at hand.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["inside", "occlusion_from_flows", "pixel_grid", "resize_flow", "sample_at", "warp_backward"]


def pixel_grid(height: int, width: int, *, device: torch.device | str = "cpu") -> Tensor:
    """(1, 2, H, W) float32: the (x, y) of every pixel centre, counted from 0."""
    y, x = torch.meshgrid(torch.arange(height, device=device), torch.arange(width, device=device), indexing="ij")
    return torch.stack([x, y])[None].float()


def sample_at(image_NCHW: Tensor, position_N2HW: Tensor) -> Tensor:
    """The image's values at positions (x, y) in pixels, bilinear; outside it, its mirror image.

    Pixel centres are whole numbers, hence `align_corners=True`.
    """
    height, width = image_NCHW.shape[-2:]
    scale = position_N2HW.new_tensor([2 / max(width - 1, 1), 2 / max(height - 1, 1)])
    grid_NHW2 = position_N2HW.permute(0, 2, 3, 1) * scale - 1
    return F.grid_sample(image_NCHW, grid_NHW2, padding_mode="reflection", align_corners=True)


def warp_backward(image_NCHW: Tensor, flow_N2HW: Tensor) -> Tensor:
    """Sample the image where the flow points, bilinearly; zero flow returns it bit for bit.

    Outside the image its nearest edge pixel is read; mask those places with an occlusion.

    Args:
        image_NCHW: float, any range.
        flow_N2HW: (dx, dy) in pixels, from the result's grid into the image.

    Raises:
        ValueError: batch, height or width differ.

    Source: ReCoNet, arXiv 1807.01197. Written with whole-pixel indices and fractions, since
    normalised coordinates (`grid_sample`) round, and zero flow would then blur.
    """
    num, channels, height, width = image_NCHW.shape
    if flow_N2HW.shape != (num, 2, height, width):
        raise ValueError(f"flow has shape {tuple(flow_N2HW.shape)}, the image needs {(num, 2, height, width)}")
    position = pixel_grid(height, width, device=flow_N2HW.device) + flow_N2HW
    x = position[:, 0].clamp(0, width - 1)
    y = position[:, 1].clamp(0, height - 1)
    x0, y0 = x.floor(), y.floor()
    fx, fy = (x - x0)[:, None], (y - y0)[:, None]
    x0, y0 = x0.long(), y0.long()
    x1, y1 = (x0 + 1).clamp_max(width - 1), (y0 + 1).clamp_max(height - 1)
    flat = image_NCHW.flatten(2)

    def pick(rows: Tensor, columns: Tensor) -> Tensor:
        index = (rows * width + columns).flatten(1)[:, None].expand(-1, channels, -1)
        return flat.gather(2, index).view(num, channels, height, width)

    top = pick(y0, x0) * (1 - fx) + pick(y0, x1) * fx
    bottom = pick(y1, x0) * (1 - fx) + pick(y1, x1) * fx
    return top * (1 - fy) + bottom * fy


def inside(position_N2HW: Tensor, height: int, width: int) -> Tensor:
    """(N, 1, H, W) bool: positions (x, y) within the picture."""
    x, y = position_N2HW[:, :1], position_N2HW[:, 1:]
    return (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)


def occlusion_from_flows(forward_N2HW: Tensor, backward_N2HW: Tensor, boundaries_N1HW: Tensor | None = None) -> Tensor:
    """Which pixels of the frame at hand can be seen in the other frame.

    Args:
        forward_N2HW: flow from the frame at hand into the other.
        backward_N2HW: flow from the other frame into the one at hand.
        boundaries_N1HW: bool, motion boundaries where they are known; None finds them in the flow.

    Returns:
        (N, 1, H, W) float32: 1 visible; 0 occluded, at a motion boundary, or outside the other frame.

    Source: Sundaram et al., ECCV 2010, eq. 5 and 6; constants as in Ruder et al., arXiv 1604.08610.
    """
    height, width = forward_N2HW.shape[-2:]
    returned = warp_backward(backward_N2HW, forward_N2HW)
    forward_energy = forward_N2HW.square().sum(1, keepdim=True)
    mismatch = (forward_N2HW + returned).square().sum(1, keepdim=True)
    occluded = mismatch >= 0.01 * (forward_energy + returned.square().sum(1, keepdim=True)) + 0.5
    if boundaries_N1HW is None:
        boundaries_N1HW = _motion_boundaries(forward_N2HW)
    position = pixel_grid(height, width, device=forward_N2HW.device) + forward_N2HW
    return (~occluded & ~boundaries_N1HW & inside(position, height, width)).float()


def _motion_boundaries(flow_N2HW: Tensor) -> Tensor:
    """(N, 1, H, W) bool: where the flow changes sharply from a pixel to the next."""
    dx = F.pad(flow_N2HW[..., :, 1:] - flow_N2HW[..., :, :-1], (0, 1, 0, 0))
    dy = F.pad(flow_N2HW[..., 1:, :] - flow_N2HW[..., :-1, :], (0, 0, 0, 1))
    gradient = (dx.square() + dy.square()).sum(1, keepdim=True)
    return gradient > 0.01 * flow_N2HW.square().sum(1, keepdim=True) + 0.002


def resize_flow(flow_N2HW: Tensor, mask_N1HW: Tensor, *, height: int, width: int) -> tuple[Tensor, Tensor]:
    """A flow and its mask for the same motion on a smaller grid.

    A small position is visible only where every pixel it covers is.
    """
    scale = flow_N2HW.new_tensor([width / flow_N2HW.shape[-1], height / flow_N2HW.shape[-2]])[None, :, None, None]
    flow = F.adaptive_avg_pool2d(flow_N2HW, (height, width)) * scale
    mask = -F.adaptive_max_pool2d(-mask_N1HW, (height, width))
    return flow, mask
