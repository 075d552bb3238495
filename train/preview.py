"""One picture that shows how a training is getting on."""

from pathlib import Path

import cv2
import torch
from torch import Tensor

from stylize.train.frame_pair import FramePair
from stylize.train.motion import warp_backward
from stylize.train.style_network import StyleNetwork

__all__ = ["write_preview"]

_DIFFERENCE_GAIN = 4.0  # a flicker of a quarter of the range shows as white


@torch.no_grad()
def write_preview(path: Path, network: StyleNetwork, pairs: FramePair) -> None:
    """Write rows of: content | stylized | next stylized | their difference after warping.

    A network of several styles shows them in turn, one in each row.

    Args:
        path: a .jpg or .png; replaced whole.
        network: on the device of `pairs`; its mode is left as it is.
        pairs: a batch, (N, 3, H, W) each.

    Raises:
        OSError: the file cannot be written.
    """
    mix_NS = None
    if network.num_styles > 1:
        turn = torch.arange(len(pairs.flow), device=pairs.flow.device) % network.num_styles
        mix_NS = torch.nn.functional.one_hot(turn, network.num_styles).float()
    previous, current = network(pairs.previous, mix_NS), network(pairs.current, mix_NS)
    difference = (current - warp_backward(previous, pairs.flow)).abs() * pairs.visible * _DIFFERENCE_GAIN
    columns = [pairs.previous, previous, current, difference.clamp(0, 1)]
    sheet_3HW = torch.cat([torch.cat(list(column), dim=1) for column in columns], dim=2)
    encoded = cv2.imencode(path.suffix, _bgr_uint8(sheet_3HW))[1]
    temporary = path.with_name(f".{path.name}.partial")
    temporary.write_bytes(encoded.tobytes())
    temporary.replace(path)


def _bgr_uint8(picture_3HW: Tensor) -> cv2.typing.MatLike:
    rgb = (picture_3HW.float().clamp(0, 1) * 255).round().byte().permute(1, 2, 0).cpu().numpy()
    return cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR)
