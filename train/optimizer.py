"""Adam, and how fast which layer learns when."""

import math
from typing import Final

from torch import nn, optim

from stylize.train.config import TrainConfig

__all__ = ["learning_rate", "make_optimizer", "set_learning_rate"]

_WARMUP_SHARE: Final = 0.02  # of the run, learning rate rising linearly
# Inputs that a convolution may sum up at the full rate: the output layer of `fast`, 5x5 over 24 channels.
# Measured beside other widths: docs/training.md.
_FAN_IN_AT_FULL_RATE: Final = 600


def make_optimizer(network: nn.Module, config: TrainConfig) -> optim.Adam:
    """Adam whose groups of weights have a `factor` each, by which their learning rate is multiplied.

    Adam moves each weight by about the learning rate, however small its gradient, so one step changes a sum over
    `fan_in` inputs by up to `fan_in` times that: enough, in wide layers, to drive the output into the flat ends of
    its tanh, where black blobs stay. Their rate is therefore divided by `fan_in`.
    Source: Yang et al., "Tensor Programs V", arXiv 2203.03466, table 3, column Adam.
    """
    groups: dict[float, list[nn.Parameter]] = {}
    for weight in network.parameters():
        fan_in = weight[0].numel() if config.slower_wide_layers and weight.ndim == 4 else 1
        groups.setdefault(min(1.0, _FAN_IN_AT_FULL_RATE / fan_in), []).append(weight)
    return optim.Adam(
        [{"params": weights, "factor": factor} for factor, weights in groups.items()], lr=config.learning_rate
    )


def learning_rate(config: TrainConfig, fraction: float) -> float:
    """The rate when `fraction` of the run is done: linear rise, then half a cosine down to nearly nothing."""
    if not config.decay:
        return config.learning_rate
    if fraction < _WARMUP_SHARE:
        return config.learning_rate * (0.1 + 0.9 * fraction / _WARMUP_SHARE)
    decayed = 0.5 * (1 + math.cos(math.pi * (fraction - _WARMUP_SHARE) / (1 - _WARMUP_SHARE)))
    return config.learning_rate * (0.005 + 0.995 * decayed)


def set_learning_rate(optimizer: optim.Adam, rate: float) -> None:
    """Let the layers learn at `rate`, each by its own factor."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["factor"]
