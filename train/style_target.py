"""What a style picture asks of a stylized one, seen through the loss network.

Shapes: N pictures, C channels, H height, W width.
"""

from collections.abc import Iterator
from pathlib import Path

import cv2
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
from stylize.train.pictures import read_picture

__all__ = ["StyleTarget"]


class StyleTarget:
    """The loss network with the style picture's Gram matrices at each scale."""

    def __init__(self, config: TrainConfig, device: torch.device, dtype: torch.dtype) -> None:
        """Read the style picture and the loss network's weights.

        Args:
            config: style, layers and scales.
            device: where the loss network works.
            dtype: what it computes in.

        Raises:
            ValueError: unreadable picture or weights, or a layer that the weights do not reach.
        """
        style_13HW = _style_picture(config.style, config.style_size_px).to(device)
        if config.loss_weights is not None:
            weights = loss_weights_from_file(config.loss_weights)
        else:
            weights = loss_weights_from_hub()
        style_layers = usable_layers(weights, config.style_layers)
        # VGG-16 has no relu3_4 and cut weights may end before it: the next shallower layer does as well.
        shallower = [layer for layer in reversed(available_layers(weights)) if layer < config.content_layer]
        content_candidates = [config.content_layer, *shallower]
        self._content_layer = usable_layers(weights, content_candidates)[0]
        loss_network = LossNetwork(weights, {*style_layers, self._content_layer})
        self._network = loss_network.to(device, dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._dtype = dtype
        self._num_scales = config.num_scales
        self._grams = [
            {layer: gram_matrix(features[layer]) for layer in style_layers} for features in self._features(style_13HW)
        ]

    def _features(self, pictures_NCHW: Tensor) -> Iterator[dict[str, Tensor]]:
        for level in image_pyramid(pictures_NCHW, self._num_scales):
            yield self._network(level.to(self._dtype, memory_format=torch.channels_last))

    def losses(self, stylized_N3HW: Tensor, source_N3HW: Tensor) -> tuple[Tensor, Tensor]:
        """Relative content error and relative Gram error, the latter averaged over layers and scales."""
        with torch.no_grad():
            source = source_N3HW.to(self._dtype, memory_format=torch.channels_last)
            wanted = self._network(source)[self._content_layer]
        content = stylized_N3HW.new_zeros(())
        style = []
        for scale, (features, grams) in enumerate(zip(self._features(stylized_N3HW), self._grams, strict=True)):
            if scale == 0:
                content = content_loss(features[self._content_layer], wanted)
            style += [style_loss(features[layer], gram) for layer, gram in grams.items()]
        return content, torch.stack(style).mean()


def _style_picture(path: Path, short_side_px: int) -> Tensor:
    """(1, 3, H, W) RGB in [0, 1] with the short side scaled."""
    picture = read_picture(path)
    height, width = picture.shape[:2]
    scale = short_side_px / min(height, width)
    size = (round(width * scale), round(height * scale))
    resized = cv2.resize(picture, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    return torch.from_numpy(resized).permute(2, 0, 1)[None].float() / 255
