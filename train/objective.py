"""What one step of training makes smaller, term by term.

Shapes: N pairs, S styles, H = W = crop; where frames are compared the network sees both of each pair in one pass
of 2N pictures.
"""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

from stylize.train.config import LossForm, TrainConfig
from stylize.train.frame_pair import FramePair
from stylize.train.losses import (
    diversity_loss,
    feature_temporal_loss,
    frame_difference_loss,
    output_temporal_loss,
    total_variation_loss,
)
from stylize.train.motion import resize_flow, warp_backward
from stylize.train.style_network import StyleNetwork
from stylize.train.style_target import StyleTarget
from stylize.train.teachers import TeacherTarget

__all__ = ["Objective", "picture_terms"]


class Objective:
    """The weighted loss terms of a config."""

    def __init__(self, config: TrainConfig, device: torch.device) -> None:
        """Read what the losses compare with.

        Raises:
            ValueError: unreadable style picture, loss weights or teacher.
        """
        self._config = config
        self._device = device
        flicker = (config.temporal_weight, config.feature_temporal_weight, config.frame_difference_weight)
        self._needs_both = any(flicker) or config.both_frames or config.mode == "texture"
        target = TeacherTarget if config.teacher else StyleTarget
        self._target = target(config, device, _heavy_dtype(config, device))

    def terms(self, network: StyleNetwork, pairs: FramePair, step: int, first_pair: int = 0) -> dict[str, Tensor]:
        """Each weighted term as a scalar with its gradient; their sum is the loss.

        Args:
            network: on the device of the objective.
            pairs: a batch on that device.
            step: number of the step, from 0.
            first_pair: where these pairs begin in the whole batch of the step, which processes may share.
        """
        num_pairs = len(pairs.flow)
        mix_NS = self._mix(step, num_pairs, first_pair)
        noise = None
        if network.takes_noise:
            generator = torch.Generator().manual_seed(self._config.seed * 2**32 + step)
            noise = torch.rand(1, *pairs.previous.shape[1:], generator=generator).to(self._device)
        with _autocast(self._config, self._device):
            frames = [pairs.previous, pairs.current] if self._needs_both else [pairs[step % 2]]
            given = mix_NS.repeat(len(frames), 1) if self._config.conditional else None
            features = network.encode(torch.cat(frames), given, noise)
            outputs = network.decode(features, given).float()
        previous, current = outputs[:num_pairs], outputs[-num_pairs:]
        form = self._config.loss_form
        terms = {"variation": total_variation_loss(outputs, form=form)}
        if self._config.mode == "texture":
            assert isinstance(self._target, StyleTarget)
            seen = current if step % 2 else previous
            terms |= self._target.losses(seen, None, mix_NS)
            terms["diversity"] = diversity_loss(outputs)
        else:
            terms |= self._appearance(previous, current, pairs, mix_NS, step)
            if form == "summed":  # pytorch-reconet adds up what the two frames score
                terms = {name: 2 * term for name, term in terms.items()}
            if self._needs_both:
                terms["temporal"] = _output_flicker(previous, current, pairs, form)
                terms["features"] = _feature_flicker(features.float(), pairs, form)
            if self._config.frame_difference_weight:
                terms["difference"] = frame_difference_loss(
                    current, previous, pairs.current_clean, pairs.previous_clean
                )
        return {name: weight * terms[name] for name, weight in self._weights().items() if name in terms}

    def _appearance(
        self, previous: Tensor, current: Tensor, pairs: FramePair, mix_NS: Tensor, step: int
    ) -> dict[str, Tensor]:
        """Style and content of both frames, or of one.

        The two look alike: one of them, in turn, says as much as both, and the loss network is nine tenths
        of the work.
        """
        if self._config.both_frames:
            sources = torch.cat([pairs.previous_clean, pairs.current_clean])
            return self._target.losses(torch.cat([previous, current]), sources, mix_NS.repeat(2, 1))
        if step % 2:
            return self._target.losses(current, pairs.current_clean, mix_NS)
        return self._target.losses(previous, pairs.previous_clean, mix_NS)

    def _mix(self, step: int, num_pairs: int, first_pair: int = 0) -> Tensor:
        """Share of each style in each pair of this step, (N, S)."""
        shares = torch.tensor(self._config.shares)
        if not self._config.conditional:
            return shares.expand(num_pairs, -1).to(self._device)
        # Each style in turn, twice: once for each frame of a pair.
        turn = torch.arange(num_pairs) + first_pair + step // 2 * self._config.batch_size
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
            "difference": config.frame_difference_weight,
            "variation": config.variation_weight,
            "diversity": config.diversity_weight,
        }


def picture_terms(
    config: TrainConfig, target: StyleTarget, stylized_N3HW: Tensor, source_N3HW: Tensor
) -> dict[str, Tensor]:
    """The weighted terms that a single picture has: content, style and variation."""
    mix_NS = torch.tensor(config.shares, device=stylized_N3HW.device).expand(len(stylized_N3HW), -1)
    terms = target.losses(stylized_N3HW, source_N3HW, mix_NS)
    return {
        "content": config.content_weight * terms["content"],
        "style": config.style_weight * terms["style"],
        "variation": config.variation_weight * total_variation_loss(stylized_N3HW, form=config.loss_form),
    }


def _output_flicker(previous: Tensor, current: Tensor, pairs: FramePair, form: LossForm) -> Tensor:
    return output_temporal_loss(
        current,
        warp_backward(previous, pairs.flow),
        pairs.current_clean,
        warp_backward(pairs.previous_clean, pairs.flow),
        pairs.visible,
        form=form,
    )


def _feature_flicker(features: Tensor, pairs: FramePair, form: LossForm) -> Tensor:
    num_pairs, (height, width) = len(pairs.flow), features.shape[-2:]
    flow, visible = resize_flow(pairs.flow, pairs.visible, height=height, width=width)
    warped = warp_backward(features[:num_pairs], flow)
    return feature_temporal_loss(features[num_pairs:], warped, visible, form=form)


def _heavy_dtype(config: TrainConfig, device: torch.device) -> torch.dtype:
    """The heavy parts' arithmetic: bfloat16 nearly halves a step on GPUs and on CPUs with AVX-512 BF16 or AMX."""
    if config.precision == "auto":
        capabilities = torch.cpu.get_capabilities()
        has_bf16 = capabilities.get("avx512_bf16", False) or capabilities.get("amx_bf16", False)
        return torch.bfloat16 if device.type == "cuda" or has_bf16 else torch.float32
    return torch.bfloat16 if config.precision == "bf16" else torch.float32


def _autocast(config: TrainConfig, device: torch.device) -> AbstractContextManager[object]:
    """The style network in the same arithmetic as the loss network; weights and their updates stay float32."""
    dtype = _heavy_dtype(config, device)
    return nullcontext() if dtype == torch.float32 else torch.autocast(device.type, dtype)
