"""The training loop: repeatable, resumable, safe to kill."""

import dataclasses
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import pytest
import torch

from helpers.training import tiny_config
from stylize.train.checkpoint import Checkpoint, load_checkpoint, network_from_checkpoint, save_checkpoint
from stylize.train.loop import Progress, TrainingDivergedError, train
from stylize.train.optimizer import learning_rate
from stylize.train.style_network import StyleNetwork


def _train(folder: Path, name: str = "x.pth", *, resume: bool = False, **changes: object) -> Checkpoint:
    config = tiny_config(folder, **changes)
    return train(config, folder / name, resume=resume, on_step=lambda _: None, device="cpu")


def test_checkpoint_on_disk_is_what_was_returned(tmp_path: Path) -> None:
    returned, loaded = _train(tmp_path), load_checkpoint(tmp_path / "x.pth")
    assert loaded.step == 4
    assert loaded.style == "style"
    assert (loaded.network, loaded.options) == ("fast", {"width": 32})
    assert loaded.config == returned.config
    assert set(loaded.losses) == {"content", "style", "temporal", "features", "variation", "total"}
    for name, weight in network_from_checkpoint(loaded).state_dict().items():
        assert torch.equal(weight, returned.weights[name])


def test_same_seed_gives_the_same_weights(tmp_path: Path) -> None:
    first, second, other = (_train(tmp_path, steps=2, seed=seed).weights for seed in (1, 1, 2))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


@pytest.mark.parametrize("network", ["fast", "reconet"])
def test_resumed_training_equals_an_unbroken_one_bit_for_bit(tmp_path: Path, network: str) -> None:
    whole = _train(tmp_path, "whole.pth", network=network)

    def interrupt(progress: Progress) -> None:
        if progress.step == 2:
            raise KeyboardInterrupt

    config = tiny_config(tmp_path, network=network)
    with pytest.raises(KeyboardInterrupt):
        train(config, tmp_path / "part.pth", resume=False, on_step=interrupt, device="cpu")
    assert load_checkpoint(tmp_path / "part.pth").step == 2
    resumed = _train(tmp_path, "part.pth", resume=True, network=network)
    assert resumed.step == whole.step
    assert all(torch.equal(resumed.weights[name], whole.weights[name]) for name in whole.weights)
    for index, moments in whole.optimizer["state"].items():
        assert torch.equal(resumed.optimizer["state"][index]["exp_avg_sq"], moments["exp_avg_sq"])


def test_loss_falls(tmp_path: Path) -> None:
    history: list[float] = []
    config = tiny_config(tmp_path, steps=40)
    train(config, tmp_path / "x.pth", resume=False, on_step=lambda p: history.append(p.losses["total"]), device="cpu")
    assert history[-1] < 0.8 * history[0]


def test_without_temporal_losses_only_the_frame_that_is_judged_is_painted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    painted: list[int] = []
    encode = StyleNetwork.encode

    def counted(network: StyleNetwork, frames_NCHW: torch.Tensor, *rest: torch.Tensor | None) -> torch.Tensor:
        painted.append(len(frames_NCHW))
        return encode(network, frames_NCHW, *rest)

    monkeypatch.setattr(StyleNetwork, "encode", counted)
    stills = {"temporal_weight": 0.0, "feature_temporal_weight": 0.0}
    assert set(_train(tmp_path, steps=2, **stills).losses) == {"content", "style", "variation", "total"}
    _train(tmp_path, steps=1, **stills, frame_difference_weight=1.0)
    assert painted == [1, 1, 2]


def test_trains_on_drawn_scenes_without_any_data(tmp_path: Path) -> None:
    assert _train(tmp_path, data=(), steps=1).step == 1


def test_time_can_decide_the_length(tmp_path: Path) -> None:
    checkpoint = _train(tmp_path, steps=None, minutes=0.05)
    assert checkpoint.step > 0
    assert checkpoint.elapsed_seconds >= 3


def test_starts_from_the_weights_of_another_training(tmp_path: Path) -> None:
    first = _train(tmp_path, "first.pth", steps=2)
    # A learning rate of nothing leaves the weights as they came.
    second = _train(tmp_path, "second.pth", steps=1, start_from=tmp_path / "first.pth", learning_rate=1e-8)
    for name, weight in first.weights.items():
        torch.testing.assert_close(second.weights[name], weight, rtol=0, atol=1e-7)
    with pytest.raises(ValueError, match=r"first.pth: holds fast .*, this training is for reconet"):
        _train(tmp_path, "third.pth", network="reconet", start_from=tmp_path / "first.pth")
    (tmp_path / "first.pth").unlink()  # a training that goes on needs it no more
    assert _train(tmp_path, "second.pth", resume=True, steps=2, start_from=tmp_path / "first.pth").step == 2


@pytest.mark.parametrize(("slower_wide_layers", "expected_rate"), [(True, 0.001 * 600 / 3888), (False, 0.001)])
def test_wide_layers_learn_as_much_slower_as_they_are_wide(
    tmp_path: Path, slower_wide_layers: bool, expected_rate: float
) -> None:
    changes = {"network": "reconet", "slower_wide_layers": slower_wide_layers, "decay": False}
    start = _train(tmp_path, "start.pth", steps=1, learning_rate=1e-8, **changes)
    step = _train(
        tmp_path, "x.pth", steps=1, learning_rate=0.001, start_from=tmp_path / "start.pth", **changes
    )  # Adam's first step moves each weight by its learning rate
    output, inside = "decoder.4.conv.weight", "encoder.1.conv.conv.weight"
    for name, rate in ((output, expected_rate), (inside, 0.001)):
        moved = (step.weights[name] - start.weights[name]).abs()
        assert moved.max().item() == pytest.approx(rate, rel=0.01)


def test_the_learning_rate_rises_and_falls_to_nearly_nothing(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, learning_rate=0.01)
    rates = [learning_rate(config, step / 1000) for step in range(1001)]
    peak = rates.index(max(rates))
    assert (rates[0], rates[peak], rates[-1]) == pytest.approx((0.001, 0.01, 0.00005))
    assert peak < 100
    assert rates == sorted(rates[:peak]) + sorted(rates[peak:], reverse=True)
    assert learning_rate(dataclasses.replace(config, decay=False), 1.0) == 0.01


def test_preview_shows_four_columns(tmp_path: Path) -> None:
    _train(tmp_path, steps=1, preview_every=1)
    preview = cv2.imread(str(tmp_path / "x-preview.jpg"))
    assert preview is not None
    assert preview.shape == (4 * 64, 4 * 64, 3)


def test_rejects_resuming_with_other_settings(tmp_path: Path) -> None:
    _train(tmp_path, steps=1)
    with pytest.raises(ValueError, match=r"cannot resume with other settings: style_weight=3.0 \(was 10.0\)"):
        _train(tmp_path, resume=True, style_weight=3.0)
    with pytest.raises(ValueError, match=r"network='reconet' \(was 'fast'\)"):
        _train(tmp_path, resume=True, network="reconet")


def test_divergence_stops_and_leaves_the_checkpoint_alone(tmp_path: Path) -> None:
    trained = _train(tmp_path, steps=1)
    trained.weights["decoder.0.bias"][0] = float("nan")
    save_checkpoint(trained, tmp_path / "x.pth")
    before = (tmp_path / "x.pth").read_bytes()
    with pytest.raises(TrainingDivergedError, match=r"loss nan, gradient nan at step 1: lower learning_rate=0.002"):
        _train(tmp_path, resume=True, checkpoint_every=1)
    assert (tmp_path / "x.pth").read_bytes() == before


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"crop_px": 63}, r"crop_px=63 must be in \[64, 4096\]"),
        ({"steps": 3, "minutes": 1.0}, "steps=3 and minutes=1.0 exclude each other"),
        ({"crop_px": 90, "num_scales": 2}, "crop_px=90 must be a multiple of 4"),
        ({"crop_px": 64, "num_scales": 3}, "crop_px=64 leaves 16 px at scale 3"),
        ({"learning_rate": -1.0}, "learning_rate=-1.0 must be in"),
    ],
)
def test_rejects_settings_out_of_range(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tiny_config(tmp_path, **changes)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 half a zip", b"\x80\x02}q\x00."])
def test_rejects_files_that_are_no_checkpoint(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.pth"
    with pytest.raises(ValueError, match="no such checkpoint"):
        load_checkpoint(path)
    path.write_bytes(content)
    with pytest.raises(ValueError, match="not a checkpoint") as error:
        load_checkpoint(path)
    assert "weights_only" not in str(error.value)


def test_full_disk_leaves_the_old_checkpoint_and_names_the_file(tmp_path: Path) -> None:
    checkpoint = _train(tmp_path, steps=1)
    path = tmp_path / "x.pth"
    before = path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) // 2, limits[1]))  # as large as a file may become
    try:
        with pytest.raises(OSError, match=r"x\.pth") as error:
            save_checkpoint(checkpoint, path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert error.value.filename == str(path)
    assert path.read_bytes() == before
    assert not list(tmp_path.glob(".*partial*"))


@pytest.mark.parametrize(("network", "multiple"), [("fast", 4), ("fastest", 8), ("texture", 32)])
def test_rejects_crops_that_the_network_cannot_take(tmp_path: Path, network: str, multiple: int) -> None:
    with pytest.raises(ValueError, match=f"crop_px=66 must be a multiple of {multiple} for network='{network}'"):
        _train(tmp_path, network=network, crop_px=66)


def test_rejects_cut_checkpoint(tmp_path: Path) -> None:
    _train(tmp_path, steps=1)
    path = tmp_path / "x.pth"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ValueError, match="not a checkpoint, or damaged"):
        load_checkpoint(path)


def _start_training(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    """The command in its own process, once it has written its first checkpoint."""
    tiny_config(folder)  # writes the pictures and weights
    output = folder / "x.pth"
    command = [
        sys.executable, "-m", "stylize.train.cli", "--style", str(folder / "style.png"),
        "--data", str(folder / "photos"), "--loss-weights", str(folder / "vgg.pth"), "--crop-px", "64",
        "--num-scales", "1", "--style-size-px", "64", "--style-layers", "relu1_1", "--content-layer", "relu2_1",
        "--width", "32", "--steps", "100000", "--preview-every", "0", "-o", str(output), *arguments,
    ]  # fmt: skip
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not output.exists() and time.monotonic() < deadline:
        assert process.poll() is None, process.stderr.read() if process.stderr else ""
        time.sleep(0.05)
    assert output.exists(), "no checkpoint within a minute"
    return process


def test_killed_training_leaves_a_whole_checkpoint(tmp_path: Path) -> None:
    process = _start_training(tmp_path, "--checkpoint-every", "1")
    time.sleep(0.3)
    process.kill()  # SIGKILL: no handler can help
    process.communicate()
    assert load_checkpoint(tmp_path / "x.pth").step >= 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_training_saves_the_step_it_was_at(tmp_path: Path, number: signal.Signals) -> None:
    process = _start_training(tmp_path, "--checkpoint-every", "2")
    first = load_checkpoint(tmp_path / "x.pth").step
    process.send_signal(number)
    _, stderr = process.communicate(timeout=300)
    assert process.returncode == 130
    assert "interrupted; go on with the same command and --resume" in stderr
    assert "Traceback" not in stderr
    assert load_checkpoint(tmp_path / "x.pth").step >= first
    assert not list(tmp_path.glob(".*partial*"))
