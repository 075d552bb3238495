"""What a training test needs, small enough for seconds."""

from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np
import torch
from click.testing import CliRunner, Result
from torch import Tensor

from stylize.train.cli import main
from stylize.train.config import TrainConfig
from stylize.train.scenes import draw_scene

# torchvision's indices of the VGG-19 convolutions up to conv3_1, with a few channels each.
_TINY_VGG = {0: (3, 8), 2: (8, 8), 5: (8, 12), 7: (12, 12), 10: (12, 16)}


def tiny_vgg_weights(layout: Mapping[int, tuple[int, int]] = _TINY_VGG) -> dict[str, Tensor]:
    """Random weights under torchvision's keys; by default those of VGG-19, conv1_1 to conv3_1.

    Args:
        layout: index of each convolution to its channels in and out.
    """
    generator = torch.Generator().manual_seed(0)
    weights: dict[str, Tensor] = {}
    for index, (num_in, num_out) in layout.items():
        scale = (2 / (9 * num_in)) ** 0.5
        weights[f"features.{index}.weight"] = torch.randn(num_out, num_in, 3, 3, generator=generator) * scale
        weights[f"features.{index}.bias"] = torch.zeros(num_out)
    return weights


def write_picture(path: Path, *, seed: int = 0, height: int = 96, width: int = 128) -> Path:
    """A drawn scene as a picture file."""
    scene = draw_scene(seed, height=height, width=width)
    path.write_bytes(cv2.imencode(path.suffix, np.ascontiguousarray(scene[..., ::-1]))[1].tobytes())
    return path


def tiny_config(folder: Path, **changes: object) -> TrainConfig:
    """A training of a few steps on one picture; writes what it needs into `folder`."""
    weights = folder / "vgg.pth"
    if not weights.exists():
        torch.save(tiny_vgg_weights(), weights)
        (folder / "photos").mkdir()
        write_picture(folder / "photos" / "a.png", seed=1)
        write_picture(folder / "style.png", seed=2)
    settings: dict[str, object] = {
        "style": (folder / "style.png",),
        "data": (str(folder / "photos"),),
        "loss_weights": weights,
        "width": 32,
        "crop_px": 64,
        "num_scales": 1,
        "style_size_px": 64,
        "style_layers": ("relu1_1", "relu2_1"),
        "content_layer": "relu3_1",
        "steps": 4,
        "preview_every": 0,
        "checkpoint_every": 100,
    }
    return TrainConfig(**(settings | changes))  # type: ignore[arg-type]


def run_tiny(folder: Path, *arguments: str) -> Result:
    """`stylize-train` as typed, on what `tiny_config` writes."""
    tiny_config(folder)
    command = [
        *("--style", str(folder / "style.png"), "--data", str(folder / "photos")),
        *("--loss-weights", str(folder / "vgg.pth"), "--crop-px", "64", "--num-scales", "1", "--style-size-px", "64"),
        *("--style-layers", "relu1_1", "--style-layers", "relu2_1", "--content-layer", "relu3_1", "--width", "32"),
        *("--preview-every", "0", "--device", "cpu", *arguments),
    ]
    return CliRunner().invoke(main, command)
