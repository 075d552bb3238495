"""What one step of training makes smaller, term by term.

Shapes: N pairs, S styles, H = W = crop; the network sees both frames of each pair in one pass of 2N pictures.
"""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

from stylize.train.config import TrainConfig
from stylize.train.frame_pair import FramePair
from stylize.train.losses import diversity_loss, feature_temporal_loss, output_temporal_loss, total_variation_loss
from stylize.train.motion import resize_flow, warp_backward
from stylize.train.style_network import StyleNetwork
from stylize.train.style_target import StyleTarget
from stylize.train.teachers import TeacherTarget

__all__ = ["Objective"]

# The output's temporal loss is counted in units of this mean square: a flicker of 5 % of the range.
_TEMPORAL_UNIT = 0.05**2


class Objective:
    """The weighted loss terms of a config."""

    def __init__(self, config: TrainConfig, device: torch.device) -> None:
        """Read what the losses compare with.

        Raises:
            ValueError: unreadable style picture, loss weights or teacher.
        """
        self._config = config
        self._device = device
        target = TeacherTarget if config.teacher else StyleTarget
        self._target = target(config, device, _loss_dtype(config, device))

    def terms(self, network: StyleNetwork, pairs: FramePair, step: int) -> dict[str, Tensor]:
        """Each weighted term as a scalar with its gradient; their sum is the loss.

        Args:
            network: on the device of the objective.
            pairs: a batch on that device.
            step: number of the step, from 0.
        """
        num_pairs = len(pairs.flow)
        mix_NS = self._mix(step, num_pairs)
        noise = None
        if network.takes_noise:
            generator = torch.Generator().manual_seed(self._config.seed * 2**32 + step)
            noise = torch.rand(1, *pairs.previous.shape[1:], generator=generator).to(self._device)
        with _autocast(self._config, self._device):
            given = mix_NS.repeat(2, 1) if self._config.conditional else None
            features = network.encode(torch.cat([pairs.previous, pairs.current]), given, noise)
            outputs = network.decode(features, given).float()
        previous, current = outputs[:num_pairs], outputs[num_pairs:]
        # The two frames of a pair look alike: style and content of one of them, in turn, say as much as
        # of both, and the loss network is nine tenths of the work.
        seen, source = (current, pairs.current_clean) if step % 2 else (previous, pairs.previous_clean)
        terms = {"variation": total_variation_loss(outputs)}
        if self._config.mode == "texture":
            assert isinstance(self._target, StyleTarget)
            terms |= self._target.losses(seen, None, mix_NS)
            terms["diversity"] = diversity_loss(outputs)
        else:
            terms |= self._target.losses(seen, source, mix_NS)
            terms["temporal"] = _output_flicker(previous, current, pairs)
            terms["features"] = _feature_flicker(features.float(), pairs)
        return {name: weight * terms[name] for name, weight in self._weights().items() if name in terms}

    def _mix(self, step: int, num_pairs: int) -> Tensor:
        """Share of each style in each pair of this step, (N, S)."""
        shares = torch.tensor(self._config.shares)
        if not self._config.conditional:
            return shares.expand(num_pairs, -1).to(self._device)
        # Each style in turn, twice: once for each frame of a pair.
        turn = torch.arange(num_pairs) + step // 2 * num_pairs
        return torch.eye(len(shares))[turn % len(shares)].to(self._device)

    def _weights(self) -> dict[str, float]:
        config = self._config
        return {
            "content": config.content_weight,
            "style": config.style_weight,
            "teacher": config.teacher_weight,
            "teacher_features": config.teacher_feature_weight,
            "temporal": config.temporal_weight,
            "features": config.feature_temporal_weight,
            "variation": config.variation_weight,
            "diversity": config.diversity_weight,
        }


def _output_flicker(previous: Tensor, current: Tensor, pairs: FramePair) -> Tensor:
    change = output_temporal_loss(
        current,
        warp_backward(previous, pairs.flow),
        pairs.current_clean,
        warp_backward(pairs.previous_clean, pairs.flow),
        pairs.visible,
    )
    return change / _TEMPORAL_UNIT


def _feature_flicker(features: Tensor, pairs: FramePair) -> Tensor:
    num_pairs, (height, width) = len(pairs.flow), features.shape[-2:]
    flow, visible = resize_flow(pairs.flow, pairs.visible, height=height, width=width)
    warped = warp_backward(features[:num_pairs], flow)
    return feature_temporal_loss(features[num_pairs:], warped, visible)


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
