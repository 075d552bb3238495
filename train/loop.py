"""The training loop, top to bottom."""

import hashlib
import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.utils.data import DataLoader, Subset, default_collate

from stylize.train.checkpoint import Checkpoint, load_checkpoint, network_from_checkpoint, save_checkpoint
from stylize.train.config import TrainConfig, config_to_dict
from stylize.train.data import FramePairs, WeightedSource, open_data
from stylize.train.frame_pair import FramePair
from stylize.train.networks import build_network
from stylize.train.noise_pairs import NoisePairs
from stylize.train.objective import Objective
from stylize.train.preview import write_preview
from stylize.train.style_network import StyleNetwork

__all__ = ["Progress", "TrainingDivergedError", "train"]

logger = logging.getLogger(__name__)

_WARMUP_SHARE = 0.02  # of the run, learning rate rising linearly
_NUM_PREVIEW_PAIRS = 4
_PREVIEW_SEED = 2**31  # pairs that no training seed below it draws
_LOSS_MEMORY = 0.98  # reported losses are means over about 50 steps
_MAX_GRADIENT_NORM = 10.0  # rare exploding steps, mostly in the first hundred


class TrainingDivergedError(RuntimeError):
    """The loss became infinite or NaN; the last checkpoint is whole."""


@dataclass(frozen=True, kw_only=True)
class Progress:
    """What the caller is told after every step."""

    step: int
    fraction: float
    """Share of the run that is done, by steps or by time."""
    elapsed_seconds: float
    losses: dict[str, float]
    """Weighted terms and their `total`."""


@dataclass
class _State:
    """What changes while training and what a checkpoint keeps."""

    network: StyleNetwork
    optimizer: torch.optim.Adam
    style_names: tuple[str, ...]
    style_sha256: str
    step: int = 0
    elapsed_seconds: float = 0.0
    losses: dict[str, float] | None = None


def train(
    config: TrainConfig, output: Path, *, resume: bool, on_step: Callable[[Progress], None], device: str | None = None
) -> Checkpoint:
    """Train a style and write it to `output` now and then, and at the end.

    The data, the initial weights and the order of both depend on the config alone, so on a CPU a
    resumed run ends with the same weights, bit for bit, as an unbroken one of as many steps.

    Args:
        config: the whole run.
        output: the checkpoint; previews go beside it as `<stem>-preview.jpg`.
        resume: continue from `output` if it is there.
        on_step: called after every step; it may raise KeyboardInterrupt to save and stop there.
        device: `cpu`, `cuda`, ...; None takes CUDA when there is one.

    Returns:
        The last checkpoint, as written.

    Raises:
        ValueError: unreadable style, data, weights, or a checkpoint that does not fit the config.
        TrainingDivergedError: the loss is no longer finite.
        KeyboardInterrupt: raised by `on_step`, and raised again after the checkpoint was written.
    """
    target_device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    state = _initial_state(config, target_device)
    if resume and output.is_file():
        _restore(state, load_checkpoint(output), config)
    objective = Objective(config, target_device)
    if config.mode == "texture":
        sources: list[WeightedSource] = [(NoisePairs(crop_px=config.crop_px), 1.0)]
    else:
        sources = open_data(config.data, crop_px=config.crop_px, cache=config.flow_cache)
    preview_pairs = _preview_pairs(sources, config, target_device)
    started = time.monotonic() - state.elapsed_seconds
    batches = iter(_loader(sources, config, state.step, target_device))
    preview = output.with_name(f"{output.stem}-preview.jpg")
    while (fraction := _fraction(config, state)) < 1:
        pairs = FramePair(*(x.to(target_device, non_blocking=True) for x in next(batches)))
        for group in state.optimizer.param_groups:
            group["lr"] = config.learning_rate * _schedule(fraction)
        losses = _step(state, pairs, objective, config)
        state.step += 1
        state.elapsed_seconds = time.monotonic() - started
        state.losses = _smoothed(state.losses, losses)
        try:
            on_step(_progress(state, config))
        except KeyboardInterrupt:  # between two steps, so that going on from here loses nothing
            save_checkpoint(_checkpoint(state, config), output)
            raise
        if config.preview_every and state.step % config.preview_every == 0:
            write_preview(preview, state.network, preview_pairs)
        if state.step % config.checkpoint_every == 0:
            save_checkpoint(_checkpoint(state, config), output)
    final = _checkpoint(state, config)
    save_checkpoint(final, output)
    if config.preview_every:
        write_preview(preview, state.network, preview_pairs)
    return final


def _progress(state: _State, config: TrainConfig) -> Progress:
    return Progress(
        step=state.step,
        fraction=min(1.0, _fraction(config, state)),
        elapsed_seconds=state.elapsed_seconds,
        losses=state.losses or {},
    )


def _step(state: _State, pairs: FramePair, objective: Objective, config: TrainConfig) -> dict[str, float]:
    """One optimiser step; returns the weighted loss terms."""
    terms = objective.terms(state.network, pairs, state.step)
    total = torch.stack(list(terms.values())).sum()
    state.optimizer.zero_grad(set_to_none=True)
    total.backward()  # type: ignore[no-untyped-call]
    norm = torch.nn.utils.clip_grad_norm_(state.network.parameters(), _MAX_GRADIENT_NORM)
    if not torch.isfinite(total + norm):  # sync point: both must be known before they spoil the weights
        raise TrainingDivergedError(
            f"loss {total.item()}, gradient {norm.item()} at step {state.step}: "
            f"lower learning_rate={config.learning_rate} and go on from the last checkpoint with resume"
        )
    state.optimizer.step()
    return {name: term.item() for name, term in terms.items()} | {"total": total.item()}


def _initial_state(config: TrainConfig, device: torch.device) -> _State:
    torch.manual_seed(config.seed)
    network = build_network(config.network, config.network_options)
    if config.start_from is not None:
        start = load_checkpoint(config.start_from)
        begun = network_from_checkpoint(start)
        one_style = {key: value for key, value in network.options.items() if key != "num_styles"}
        if begun.name != network.name or begun.options not in (network.options, one_style):
            raise ValueError(
                f"{config.start_from}: holds {begun.name} {begun.options}, "
                f"this training is for {network.name} {network.options}"
            )
        weights = begun.state_dict()
        # Where each style has norms of its own and there was one style, all begin with those.
        network.load_state_dict(
            {name: weights[name].expand(wanted.shape) for name, wanted in network.state_dict().items()}
        )
    network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    style_names, style_sha256 = _styles(config)
    return _State(
        network=network,
        optimizer=torch.optim.Adam(network.parameters(), lr=config.learning_rate),
        style_names=style_names,
        style_sha256=style_sha256,
    )


def _styles(config: TrainConfig) -> tuple[tuple[str, ...], str]:
    """Names of the styles, and a digest of their pictures."""
    if config.teacher:
        teachers = [load_checkpoint(path) for path in config.teacher]
        styles = [(teacher.style, teacher.style_sha256) for teacher in teachers]
    else:
        styles = [(path.stem, hashlib.sha256(path.read_bytes()).hexdigest()) for path in config.style]
    names, digests = zip(*styles, strict=True)
    if config.conditional and len(set(names)) < len(names):
        raise ValueError(f"the styles {', '.join(names)} are called by these names at run time: rename those alike")
    return names, digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()


def _restore(state: _State, checkpoint: Checkpoint, config: TrainConfig) -> None:
    """Put a checkpoint's training state into `state`.

    Raises:
        ValueError: the checkpoint is of another style, network or setting.
    """
    ignored = {
        "steps",
        "minutes",
        "learning_rate",
        "preview_every",
        "checkpoint_every",
        "loss_weights",
        "style",
        "teacher",
        "data",
        "flow_cache",
    }
    now = config_to_dict(config)
    changed = [
        f"{name}={now[name]!r} (was {value!r})"
        for name, value in checkpoint.config.items()
        if name not in ignored and now.get(name) != value
    ]
    if checkpoint.style_sha256 != state.style_sha256:
        changed.append(f"style {'+'.join(state.style_names)!r} (was {checkpoint.style!r})")
    if changed:
        raise ValueError(f"cannot resume with other settings: {', '.join(changed)}; use those, or another output")
    state.network.load_state_dict(checkpoint.weights)
    state.optimizer.load_state_dict(checkpoint.optimizer)
    state.step, state.elapsed_seconds = checkpoint.step, checkpoint.elapsed_seconds
    state.losses = checkpoint.losses
    torch.set_rng_state(checkpoint.random_state)


def _checkpoint(state: _State, config: TrainConfig) -> Checkpoint:
    return Checkpoint(
        network=state.network.name,
        options=state.network.options,
        weights={name: weight.cpu() for name, weight in state.network.state_dict().items()},
        style="+".join(state.style_names),
        style_names=state.style_names if config.conditional else (),
        style_sha256=state.style_sha256,
        config=config_to_dict(config),
        step=state.step,
        elapsed_seconds=state.elapsed_seconds,
        losses=state.losses or {},
        optimizer=state.optimizer.state_dict(),
        random_state=torch.get_rng_state(),
    )


def _loader(
    sources: list[WeightedSource], config: TrainConfig, start_step: int, device: torch.device
) -> DataLoader[FramePair]:
    """Batches from `start_step` on; effectively endless when time decides the length."""
    num_pairs = (config.num_steps or 10**9) * config.batch_size
    pairs = FramePairs(sources, num_pairs=num_pairs, seed=config.seed)
    rest = Subset(pairs, range(start_step * config.batch_size, num_pairs))
    is_cuda = device.type == "cuda"
    # On a CPU the network already uses every core, so loader processes would only compete.
    return DataLoader(
        rest, config.batch_size, num_workers=8 if is_cuda else 0, pin_memory=is_cuda, persistent_workers=is_cuda
    )


def _preview_pairs(sources: list[WeightedSource], config: TrainConfig, device: torch.device) -> FramePair:
    pairs = FramePairs(sources, num_pairs=_NUM_PREVIEW_PAIRS, seed=_PREVIEW_SEED + config.seed)
    batch = default_collate([pairs[index] for index in range(_NUM_PREVIEW_PAIRS)])
    return FramePair(*(column.to(device) for column in batch))


def _fraction(config: TrainConfig, state: _State) -> float:
    if config.minutes is not None:
        return state.elapsed_seconds / (config.minutes * 60)
    assert config.num_steps is not None
    return state.step / config.num_steps


def _schedule(fraction: float) -> float:
    """Factor of the learning rate: linear rise, then half a cosine down to nearly nothing."""
    if fraction < _WARMUP_SHARE:
        return 0.1 + 0.9 * fraction / _WARMUP_SHARE
    return 0.005 + 0.995 * 0.5 * (1 + math.cos(math.pi * (fraction - _WARMUP_SHARE) / (1 - _WARMUP_SHARE)))


def _smoothed(before: dict[str, float] | None, now: dict[str, float]) -> dict[str, float]:
    if before is None:
        return now
    return {name: _LOSS_MEMORY * before[name] + (1 - _LOSS_MEMORY) * value for name, value in now.items()}
