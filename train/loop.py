"""The training loop, top to bottom."""

import hashlib
import logging
import math
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader

from stylize.train.board import Board
from stylize.train.checkpoint import Checkpoint, load_checkpoint, network_from_checkpoint, save_checkpoint
from stylize.train.config import TrainConfig, config_to_dict
from stylize.train.data import FramePairs, WeightedSource, open_data
from stylize.train.frame_pair import FramePair, Window
from stylize.train.loading import BatchShare, batch_of, pair_loader
from stylize.train.networks import build_network
from stylize.train.noise_pairs import NoisePairs
from stylize.train.objective import Objective
from stylize.train.optimizer import learning_rate, make_optimizer, set_learning_rate
from stylize.train.preview import preview_sheet, write_picture
from stylize.train.process_group import ProcessGroup
from stylize.train.style_network import StyleNetwork

__all__ = ["Progress", "TrainingDivergedError", "train"]

logger = logging.getLogger(__name__)

_NUM_PREVIEW_PAIRS = 4
_PREVIEW_SEED = 2**31  # pairs that no training seed below it draws
_LOSS_MEMORY = 0.98  # reported losses are means over about 50 steps


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
    with ProcessGroup(device) as group:
        return _train(config, output, group=group, resume=resume, on_step=on_step)


def _train(
    config: TrainConfig, output: Path, *, group: ProcessGroup, resume: bool, on_step: Callable[[Progress], None]
) -> Checkpoint:
    resumed = load_checkpoint(output) if resume and output.is_file() else None
    state = _initial_state(config, group.device, start_from=config.start_from if resumed is None else None)
    if resumed is not None:
        _restore(state, resumed, config)
        logger.info("%s: going on after step %d", output, state.step)
    with group.first_alone():  # loss weights are downloaded and the motion of clips is measured once
        objective = Objective(config, group.device)
        sources = _sources(config)
    preview_pairs = _preview_pairs(sources, config, group.device)
    preview = output.with_name(f"{output.stem}-preview.jpg")
    started = time.monotonic() - state.elapsed_seconds
    passes = iter(_loader(sources, config, state.step, group))
    losses_of = group.share(_Losses(state.network, objective))
    with Board(config.tensorboard if group.is_first else None, first_step=state.step) as board:
        while (fraction := group.from_first(_fraction(config, state))) < 1:
            rate = learning_rate(config, fraction)
            set_learning_rate(state.optimizer, rate)
            losses = _step(state, passes, losses_of, config, group)
            state.step += 1
            state.elapsed_seconds = time.monotonic() - started
            state.losses = _smoothed(state.losses, losses)
            board.scalars(state.step, losses | {"learning_rate": rate})
            if _is_stopped(on_step, _progress(state, config), group):
                _save(state, config, output, group)  # between two steps, so that going on from here loses nothing
                raise KeyboardInterrupt
            if config.preview_every and state.step % config.preview_every == 0:
                _show(preview, board, state, preview_pairs, group)
            if state.step % config.checkpoint_every == 0:
                _save(state, config, output, group)
        if config.preview_every:
            _show(preview, board, state, preview_pairs, group)
    return _save(state, config, output, group)


def _sources(config: TrainConfig) -> list[WeightedSource]:
    if config.mode == "texture":
        return [(NoisePairs(crop_px=config.crop_px), 1.0)]
    window = Window(crop_px=config.crop_px, content_size_px=config.content_size_px)
    return open_data(config.data, window, cache=config.flow_cache)


def _is_stopped(on_step: Callable[[Progress], None], progress: Progress, group: ProcessGroup) -> bool:
    """Whether the caller of any process wants to stop here."""
    try:
        on_step(progress)
    except KeyboardInterrupt:
        return group.any(True)
    return group.any(False)


def _save(state: _State, config: TrainConfig, output: Path, group: ProcessGroup) -> Checkpoint:
    checkpoint = _checkpoint(state, config)
    if group.is_first:
        save_checkpoint(checkpoint, output)
    return checkpoint


def _show(path: Path, board: Board, state: _State, pairs: FramePair, group: ProcessGroup) -> None:
    if group.is_first:
        sheet = preview_sheet(state.network, pairs)
        write_picture(path, sheet)
        board.picture(state.step, "preview", sheet)


def _progress(state: _State, config: TrainConfig) -> Progress:
    return Progress(
        step=state.step,
        fraction=min(1.0, _fraction(config, state)),
        elapsed_seconds=state.elapsed_seconds,
        losses=state.losses or {},
    )


class _Losses(nn.Module):
    """Network and losses as one module, whose gradients can be shared between processes."""

    def __init__(self, network: StyleNetwork, objective: Objective) -> None:
        super().__init__()
        self.network = network
        self._objective = objective

    def forward(self, pairs: FramePair, step: int, first_pair: int) -> dict[str, Tensor]:
        """The weighted terms of a batch."""
        return self._objective.terms(self.network, pairs, step, first_pair)


def _step(
    state: _State, passes: Iterator[FramePair], losses_of: nn.Module, config: TrainConfig, group: ProcessGroup
) -> dict[str, float]:
    """One optimiser step; returns the weighted loss terms."""
    state.optimizer.zero_grad(set_to_none=True)
    means: dict[str, float] = {}
    for number in range(config.accumulate):
        pairs = FramePair(*(x.to(group.device, non_blocking=True) for x in next(passes)))
        is_last = number + 1 == config.accumulate  # it alone exchanges gradients
        alone: AbstractContextManager[object] = nullcontext()
        if isinstance(losses_of, DistributedDataParallel) and not is_last:
            alone = losses_of.no_sync()
        with alone:
            first_pair = (group.rank * config.accumulate + number) * len(pairs.flow)
            terms: dict[str, Tensor] = losses_of(pairs, state.step, first_pair)
            total = torch.stack(list(terms.values())).sum() / config.accumulate
            total.backward()  # type: ignore[no-untyped-call]
        for name, term in terms.items():
            means[name] = means.get(name, 0.0) + term.item() / config.accumulate
    norm = torch.nn.utils.clip_grad_norm_(state.network.parameters(), config.gradient_clip or math.inf)
    means = dict(zip(means, group.mean(list(means.values())), strict=True))
    total_loss = sum(means.values())
    if not math.isfinite(total_loss + norm.item()):  # sync point: both must be known before they spoil the weights
        raise TrainingDivergedError(
            f"loss {total_loss}, gradient {norm.item()} at step {state.step}: "
            f"lower learning_rate={config.learning_rate} and go on from the last checkpoint with resume"
        )
    state.optimizer.step()
    return means | {"total": total_loss}


def _initial_state(config: TrainConfig, device: torch.device, *, start_from: Path | None) -> _State:
    torch.manual_seed(config.seed)
    network = build_network(config.network, config.network_options)
    multiple = network.facts.size_multiple
    if config.crop_px % multiple:
        raise ValueError(f"crop_px={config.crop_px} must be a multiple of {multiple} for network={config.network!r}")
    if start_from is not None:
        start = load_checkpoint(start_from)
        begun = network_from_checkpoint(start)
        one_style = {key: value for key, value in network.options.items() if key != "num_styles"}
        if begun.name != network.name or begun.options not in (network.options, one_style):
            raise ValueError(
                f"{start_from}: holds {begun.name} {begun.options}, "
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
        optimizer=make_optimizer(network, config),
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
    if not checkpoint.optimizer:
        raise ValueError("cannot resume what holds weights alone: give it as --start-from, and another output")
    ignored = {
        "steps",
        "minutes",
        "learning_rate",
        "preview_every",
        "checkpoint_every",
        "start_from",
        "loss_weights",
        "style",
        "teacher",
        "data",
        "flow_cache",
        "preset",
        "accumulate",
        "tensorboard",
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
    sources: list[WeightedSource], config: TrainConfig, start_step: int, group: ProcessGroup
) -> DataLoader[FramePair]:
    """Batches of this process from `start_step` on; effectively endless when time decides the length."""
    num_steps = config.num_steps or 10**9
    pairs = FramePairs(sources, num_pairs=num_steps * config.batch_size, seed=config.seed)
    share = BatchShare(
        config.batch_size,
        num_passes=config.accumulate,
        rank=group.rank,
        num_processes=group.size,
        steps=range(start_step, num_steps),
    )
    return pair_loader(pairs, share, device=group.device)


def _preview_pairs(sources: list[WeightedSource], config: TrainConfig, device: torch.device) -> FramePair:
    pairs = FramePairs(sources, num_pairs=_NUM_PREVIEW_PAIRS, seed=_PREVIEW_SEED + config.seed)
    return batch_of(pairs, _NUM_PREVIEW_PAIRS, device=device)


def _fraction(config: TrainConfig, state: _State) -> float:
    if config.minutes is not None:
        return state.elapsed_seconds / (config.minutes * 60)
    assert config.num_steps is not None
    return state.step / config.num_steps


def _smoothed(before: dict[str, float] | None, now: dict[str, float]) -> dict[str, float]:
    if before is None:
        return now
    return {name: _LOSS_MEMORY * before[name] + (1 - _LOSS_MEMORY) * value for name, value in now.items()}
