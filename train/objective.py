"""What one step of training makes smaller, term by term.

Shapes: N pairs, H = W = crop; the network sees both frames of each pair in one pass of 2N pictures.
"""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

from stylize.train.config import TrainConfig
from stylize.train.frame_pair import FramePair
from stylize.train.losses import feature_temporal_loss, output_temporal_loss, total_variation_loss
from stylize.train.motion import resize_flow, warp_backward
from stylize.train.networks import StyleNetwork
from stylize.train.style_target import StyleTarget

__all__ = ["Objective"]

# The output's temporal loss is counted in units of this mean square: a flicker of 5 % of the range.
_TEMPORAL_UNIT = 0.05**2


class Objective:
    """The weighted loss terms of a config."""

    def __init__(self, config: TrainConfig, device: torch.device) -> None:
        """Read what the losses compare with.

        Raises:
            ValueError: unreadable style picture or loss weights.
        """
        self._config = config
        self._device = device
        self._target = StyleTarget(config, device, _loss_dtype(config, device))

    def terms(self, network: StyleNetwork, pairs: FramePair, step: int) -> dict[str, Tensor]:
        """Each weighted term as a scalar with its gradient; their sum is the loss.

        Args:
            network: on the device of the objective.
            pairs: a batch on that device.
            step: number of the step, from 0.
        """
        config = self._config
        num_pairs = len(pairs.flow)
        with _autocast(config, self._device):
            features = network.encode(torch.cat([pairs.previous, pairs.current]))
            outputs = network.decode(features).float()
        previous, current = outputs[:num_pairs], outputs[num_pairs:]
        # The two frames of a pair look alike: style and content of one of them, in turn, say as much as
        # of both, and the loss network is nine tenths of the work.
        if step % 2:
            content, style = self._target.losses(current, pairs.current_clean)
        else:
            content, style = self._target.losses(previous, pairs.previous_clean)
        change = output_temporal_loss(
            current,
            warp_backward(previous, pairs.flow),
            pairs.current_clean,
            warp_backward(pairs.previous_clean, pairs.flow),
            pairs.visible,
        )
        height, width = features.shape[-2:]
        small_flow, small_visible = resize_flow(pairs.flow, pairs.visible, height=height, width=width)
        features = features.float()
        warped_features = warp_backward(features[:num_pairs], small_flow)
        return {
            "content": config.content_weight * content,
            "style": config.style_weight * style,
            "temporal": config.temporal_weight * change / _TEMPORAL_UNIT,
            "features": config.feature_temporal_weight
            * feature_temporal_loss(features[num_pairs:], warped_features, small_visible),
            "variation": config.variation_weight * total_variation_loss(outputs),
        }


def _loss_dtype(config: TrainConfig, device: torch.device) -> torch.dtype:
    """The loss network's arithmetic: bfloat16 nearly halves a step on GPUs and on CPUs with AVX-512 BF16 or AMX."""
    if config.precision == "auto":
        capabilities = torch.cpu.get_capabilities()
        has_bf16 = capabilities.get("avx512_bf16", False) or capabilities.get("amx_bf16", False)
        return torch.bfloat16 if device.type == "cuda" or has_bf16 else torch.float32
    return torch.bfloat16 if config.precision == "bf16" else torch.float32


def _autocast(config: TrainConfig, device: torch.device) -> AbstractContextManager[object]:
    """On a GPU the style network runs in bfloat16 too; on a CPU it is too small to gain."""
    if device.type == "cuda" and config.precision != "fp32":
        return torch.autocast("cuda", torch.bfloat16)
    return nullcontext()
