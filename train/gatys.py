"""Stylizing one picture by optimising its pixels: slow, but what a trained network is measured against.

Gatys, Ecker & Bethge, "Image style transfer using convolutional neural networks" (CVPR 2016), with the
losses of the training, so that its figures and those of a network stand side by side.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from stylize.train.checkpoint import load_checkpoint, network_from_checkpoint
from stylize.train.config import TrainConfig
from stylize.train.objective import picture_terms
from stylize.train.pictures import read_picture, scaled_picture
from stylize.train.preview import write_picture
from stylize.train.process_group import usable_device
from stylize.train.style_target import StyleTarget

__all__ = ["REPORTED_ITERATIONS", "PictureLosses", "losses_of_network", "optimize_picture"]

REPORTED_ITERATIONS = (100, 300)  # those of Johnson et al. 2016, table 1
_DEFAULT_SHORT_SIDE_PX = 512
_SEGMENT = 10  # iterations between two reports
_HISTORY = 20  # pairs of steps and gradients that L-BFGS keeps; 100 as in torch's default fills memory for no gain


@dataclass(frozen=True, kw_only=True)
class PictureLosses:
    """Weighted loss terms of one stylized picture, as a training reports them."""

    iteration: int
    terms: dict[str, float]

    def text(self) -> str:
        """One line: `style 0.512 content 0.431 variation 0.020 total 0.963`."""
        return " ".join(f"{name} {value:.3f}" for name, value in self.terms.items())


def optimize_picture(
    content: Path,
    config: TrainConfig,
    output: Path,
    *,
    device: str | None = None,
    on_report: Callable[[PictureLosses], None],
) -> list[PictureLosses]:
    """Paint one picture in the style of a config, without any network, and write it.

    Begins with the content picture and minimises content, style and variation with L-BFGS.

    Args:
        content: picture; its short side is scaled to `content_size_px`, or down to 512.
        config: styles, weights and layers; the rest is not used.
        output: picture to write; replaced after each report, so an interrupted run leaves the latest.
        device: `cpu`, `cuda`, ...; None takes CUDA when there is one.
        on_report: called every few iterations.

    Returns:
        The losses at `REPORTED_ITERATIONS`.
    """
    place = usable_device(device)
    target = StyleTarget(config, place, torch.float32)  # the line search needs exact gradients
    source = _content_picture(content, config).to(place)
    picture = source.clone(memory_format=torch.contiguous_format).requires_grad_(True)
    optimizer = torch.optim.LBFGS(
        [picture], max_iter=_SEGMENT, history_size=_HISTORY, tolerance_grad=0, tolerance_change=0,
        line_search_fn="strong_wolfe",
    )  # fmt: skip

    def closure() -> Tensor:
        optimizer.zero_grad()
        total = torch.stack(list(picture_terms(config, target, picture, source).values())).sum()
        total.backward()  # type: ignore[no-untyped-call]
        return total

    reported = []
    for iteration in range(_SEGMENT, max(REPORTED_ITERATIONS) + 1, _SEGMENT):
        optimizer.step(closure)  # type: ignore[no-untyped-call]
        with torch.no_grad():
            shown = picture.clamp(0, 1)
            losses = _losses(iteration, picture_terms(config, target, shown, source))
        write_picture(output, shown[0])
        on_report(losses)
        if iteration in REPORTED_ITERATIONS:
            reported.append(losses)
    return reported


@torch.no_grad()
def losses_of_network(checkpoint: Path, content: Path, config: TrainConfig) -> PictureLosses:
    """What a trained network reaches on the same picture with the same losses.

    One of several styles paints in the one that is called as the style picture.

    Raises:
        ValueError: not a checkpoint, or none of its styles is called so.
    """
    loaded = load_checkpoint(checkpoint)
    network = network_from_checkpoint(loaded)
    mix = None
    if network.num_styles > 1:
        wanted = config.style[0].stem
        if len(config.style) > 1 or wanted not in loaded.style_names:
            raise ValueError(
                f"{checkpoint}: holds the styles {', '.join(loaded.style_names)}; "
                f"give one style picture called like one of them, got {', '.join(path.name for path in config.style)}"
            )
        mix = torch.eye(network.num_styles)[loaded.style_names.index(wanted)]
    source = _content_picture(content, config)
    height, width = source.shape[-2:]
    multiple = network.facts.size_multiple
    padded = torch.nn.functional.pad(source, (0, -width % multiple, 0, -height % multiple), mode="reflect")
    stylized = network(padded, mix)[..., :height, :width]
    target = StyleTarget(config, torch.device("cpu"), torch.float32)
    return _losses(0, picture_terms(config, target, stylized, source))


def _content_picture(path: Path, config: TrainConfig) -> Tensor:
    """(1, 3, H, W) at the size asked for, else at its own but no larger than the default."""
    if config.content_size_px is not None:
        return scaled_picture(path, config.content_size_px)
    return scaled_picture(path, min(_DEFAULT_SHORT_SIDE_PX, *read_picture(path).shape[:2]))


def _losses(iteration: int, terms: dict[str, Tensor]) -> PictureLosses:
    plain = {name: term.item() for name, term in terms.items()}
    return PictureLosses(iteration=iteration, terms=plain | {"total": sum(plain.values())})
