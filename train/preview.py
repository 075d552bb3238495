"""Pictures that show how a training is getting on."""

from pathlib import Path

import cv2
import torch
from torch import Tensor

from stylize.train.frame_pair import FramePair
from stylize.train.motion import warp_backward
from stylize.train.style_network import StyleNetwork
from stylize.train.whole_file import write_whole

__all__ = ["preview_sheet", "write_picture"]

_DIFFERENCE_GAIN = 4.0  # a flicker of a quarter of the range shows as white


@torch.no_grad()
def preview_sheet(network: StyleNetwork, pairs: FramePair) -> Tensor:
    """Rows of: content | stylized | next stylized | their difference after warping.

    A network of several styles shows them in turn, one in each row.

    Args:
        network: on the device of `pairs`; its mode is left as it is.
        pairs: a batch, (N, 3, H, W) each.

    Returns:
        (3, N * H, 4 * W), RGB in [0, 1].
    """
    mix_NS = None
    if network.num_styles > 1:
        turn = torch.arange(len(pairs.flow), device=pairs.flow.device) % network.num_styles
        mix_NS = torch.nn.functional.one_hot(turn, network.num_styles).float()
    previous, current = network(pairs.previous, mix_NS), network(pairs.current, mix_NS)
    difference = (current - warp_backward(previous, pairs.flow)).abs() * pairs.visible * _DIFFERENCE_GAIN
    columns = [pairs.previous, previous, current, difference.clamp(0, 1)]
    return torch.cat([torch.cat(list(column), dim=1) for column in columns], dim=2)


def write_picture(path: Path, picture_3HW: Tensor) -> None:
    """Write a picture, RGB in [0, 1], whole or not at all.

    Raises:
        ValueError: the suffix names no kind of picture that can be written.
        OSError: the file cannot be written.
    """
    rgb = (picture_3HW.float().clamp(0, 1) * 255).round().byte().permute(1, 2, 0).cpu().numpy()
    try:
        encoded = cv2.imencode(path.suffix, cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR))[1]
    except cv2.error as error:
        raise ValueError(f"{path}: pictures are written as .png, .jpg or .webp, not {path.suffix!r}") from error
    write_whole(path, encoded.tobytes())
