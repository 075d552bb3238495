"""What a style picture asks of a stylized one, seen through the loss network.

Shapes: N pictures, C channels, H height, W width.
"""

from collections.abc import Iterator, Sequence
from typing import Final

import torch
from torch import Tensor

from stylize.train.config import TrainConfig
from stylize.train.loss_network import (
    LossNetwork,
    available_layers,
    loss_weights_from_file,
    loss_weights_from_hub,
    usable_layers,
)
from stylize.train.losses import content_loss, gram_matrix, image_pyramid, style_loss
from stylize.train.pictures import scaled_picture

__all__ = ["StyleTarget", "loss_weights"]

# Of the style picture's energy. Any stroke is much, compared with bare asphalt: without this, one crop of it weighs as
# much as twenty-five photographs, whose energy is above a third of that of each of seven paintings.
_LEAST_CONTENT_ENERGY: Final = 1 / 3


class StyleTarget:
    """The loss network with the style pictures' Gram matrices at each scale."""

    def __init__(self, config: TrainConfig, device: torch.device, dtype: torch.dtype) -> None:
        """Read the style pictures and the loss network's weights.

        Args:
            config: styles, layers and scales.
            device: where the loss network works.
            dtype: what it computes in.

        Raises:
            ValueError: unreadable picture or weights, or a layer that the weights do not reach.
        """
        weights = loss_weights(config)
        if config.preset != "balanced":
            _check_layers(config, weights)
        style_layers = usable_layers(weights, config.style_layers)
        # VGG-16 has no relu3_4 and cut weights may end before it: the next shallower layer does as well.
        shallower = [layer for layer in reversed(available_layers(weights)) if layer < config.content_layer]
        content_candidates = [config.content_layer, *shallower]
        self._content_layer = usable_layers(weights, content_candidates)[0]
        self._form = config.loss_form
        loss_network = LossNetwork(weights, {*style_layers, self._content_layer})
        self._network = loss_network.to(device, dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._dtype = dtype
        self._num_scales = config.num_scales
        pictures = [scaled_picture(path, config.style_size_px).to(device) for path in config.style]
        self._least_content_energy = _LEAST_CONTENT_ENERGY * min(self._energy(picture) for picture in pictures)
        by_style = [self._style_grams(picture, style_layers) for picture in pictures]
        # One dictionary for each scale, layer name to (styles, C, C).
        self._grams = [
            {layer: torch.cat([grams[scale][layer] for grams in by_style]) for layer in style_layers}
            for scale in range(config.num_scales)
        ]

    def _energy(self, picture_13HW: Tensor) -> float:
        return self._content(picture_13HW).float().square().mean().item()

    def _style_grams(self, picture_13HW: Tensor, layers: Sequence[str]) -> list[dict[str, Tensor]]:
        return [{layer: gram_matrix(features[layer]) for layer in layers} for features in self._features(picture_13HW)]

    def _features(self, pictures_NCHW: Tensor) -> Iterator[dict[str, Tensor]]:
        for level in image_pyramid(pictures_NCHW, self._num_scales):
            yield self._network(level.to(self._dtype, memory_format=torch.channels_last))

    def losses(self, stylized_N3HW: Tensor, source_N3HW: Tensor | None, mix_NS: Tensor) -> dict[str, Tensor]:
        """Gram error, `style`, averaged over layers and scales, and content error, `content`.

        In the forms of other projects the layers' Gram errors add up.

        Args:
            stylized_N3HW: RGB in [0, 1].
            source_N3HW: what the content is compared with; None leaves content out.
            mix_NS: share of each style in each picture.
        """
        terms: dict[str, Tensor] = {}
        style = []
        for features, grams in zip(self._features(stylized_N3HW), self._grams, strict=True):
            if source_N3HW is not None and not terms:  # at the first scale
                terms["content"] = content_loss(
                    features[self._content_layer],
                    self._content(source_N3HW),
                    form=self._form,
                    least_energy=self._least_content_energy,
                )
            style += [style_loss(features[layer], gram, mix_NS, form=self._form) for layer, gram in grams.items()]
        errors = torch.stack(style)
        return terms | {"style": errors.mean() if self._form == "relative" else errors.sum() / self._num_scales}

    @torch.no_grad()
    def _content(self, source_N3HW: Tensor) -> Tensor:
        source = source_N3HW.to(self._dtype, memory_format=torch.channels_last)
        wanted: Tensor = self._network(source)[self._content_layer]
        return wanted


def loss_weights(config: TrainConfig) -> dict[str, Tensor]:
    """The loss network's weights: those given, else PyTorch's.

    Raises:
        ValueError: unreadable, or not to be had.
    """
    if config.loss_weights is None:
        return loss_weights_from_hub(config.loss_network)
    return loss_weights_from_file(config.loss_weights)


def _check_layers(config: TrainConfig, weights: dict[str, Tensor]) -> None:
    """A preset stands for its layers: none is left out in silence.

    Raises:
        ValueError: the weights end before one of them.
    """
    available = available_layers(weights)
    missing = sorted({*config.style_layers, config.content_layer} - set(available))
    if missing:
        raise ValueError(
            f"preset {config.preset} compares {', '.join(missing)}, but the loss weights end at {available[-1]}: "
            "give complete VGG weights with --loss-weights, or other layers with --style-layers and --content-layer"
        )
