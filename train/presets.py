"""Whose losses, layers and weights a training follows: each preset is a function that returns a whole config.

`dataclasses.replace` changes what a user wants otherwise.
"""

from collections.abc import Callable
from pathlib import Path

from stylize.train.config import Preset, TrainConfig

__all__ = ["PRESETS"]

# Johnson et al. 2016, section 4.1, and pytorch-reconet's vgg.py.
_JOHNSON_STYLE_LAYERS = ("relu1_2", "relu2_2", "relu3_3", "relu4_3")

Styles = tuple[Path, ...]


def balanced(style: Styles, teacher: Styles = ()) -> TrainConfig:
    """This project's own: relative errors, so one set of weights suits every style."""
    return TrainConfig(style=style, teacher=teacher)


def reconet_seed(style: Styles, teacher: Styles = ()) -> TrainConfig:
    """EmptySamurai/pytorch-reconet, train.py, which MindSpore's ReCoNet follows.

    Not taken over: the luminance weight 0.7512, a misprint of 0.7152, and the half pixel by which its warp
    shifts. Its 640x360 frames become 360x360 crops.
    """
    return TrainConfig(
        style=style,
        teacher=teacher,
        preset="reconet-seed",
        network="reconet",
        loss_network="vgg16",
        loss_form="summed",
        style_layers=_JOHNSON_STYLE_LAYERS,
        content_layer="relu3_3",
        num_scales=1,
        both_frames=True,
        content_weight=1e4,  # alpha
        style_weight=1e5,  # beta
        variation_weight=1e-5,  # gamma
        feature_temporal_weight=1e5,  # lambda_f
        temporal_weight=2e5,  # lambda_o
        learning_rate=1e-3,
        slower_wide_layers=False,
        decay=False,
        gradient_clip=0.0,
        batch_size=2,
        crop_px=360,
    )


def johnson(style: Styles, teacher: Styles = ()) -> TrainConfig:
    """pytorch/examples, fast_neural_style, whose weights belong to PyTorch's VGG-16: stills alone, no temporal loss.

    Layers as in Johnson et al., arXiv 1603.08155.
    """
    return TrainConfig(
        style=style,
        teacher=teacher,
        preset="johnson",
        network="johnson",
        loss_network="vgg16",
        loss_form="mean",
        style_layers=_JOHNSON_STYLE_LAYERS,
        content_layer="relu2_2",
        num_scales=1,
        content_weight=1e5,
        style_weight=1e10,
        variation_weight=0.0,
        feature_temporal_weight=0.0,
        temporal_weight=0.0,
        learning_rate=1e-3,
        slower_wide_layers=False,
        decay=False,
        gradient_clip=0.0,
        batch_size=4,
        crop_px=256,
        content_size_px=256,
    )


def texture(style: Styles, teacher: Styles = ()) -> TrainConfig:
    """DmitryUlyanov/texture_nets, the settings its README gives for stylization.

    Its weights belong to another VGG-19 (Caffe's, 0 to 255), so errors are relative and its ratio of style
    to content, 10, is kept.
    """
    return TrainConfig(
        style=style,
        teacher=teacher,
        preset="texture",
        network="texture",
        style_layers=("relu1_2", "relu2_2", "relu3_2", "relu4_2"),
        content_layer="relu4_2",
        num_scales=1,
        content_weight=1.0,
        style_weight=10.0,
        variation_weight=0.0,
        feature_temporal_weight=0.0,
        temporal_weight=0.0,
        learning_rate=1e-2,
        slower_wide_layers=False,
        batch_size=4,
        crop_px=512,
        content_size_px=512,
        style_size_px=600,
    )


PRESETS: dict[Preset, Callable[[Styles, Styles], TrainConfig]] = {
    "balanced": balanced,
    "reconet-seed": reconet_seed,
    "johnson": johnson,
    "texture": texture,
}
