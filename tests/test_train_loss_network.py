"""Loss weights from files and from a host, and the features they give."""

import hashlib
import io
import socket
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from helpers.training import tiny_config, tiny_vgg_weights
from stylize.train import loss_network
from stylize.train.loss_network import (
    LossNetwork,
    available_layers,
    loss_weights_from_file,
    loss_weights_from_hub,
    usable_layers,
)
from stylize.train.scenes import draw_scene
from stylize.train.style_target import StyleTarget


def test_features_have_the_sizes_and_channels_of_their_layers() -> None:
    network = LossNetwork(tiny_vgg_weights(), ["relu1_1", "relu2_2", "relu3_1"])
    features = network(torch.rand(2, 3, 32, 48))
    shapes = {layer: tuple(x.shape) for layer, x in features.items()}
    assert shapes == {"relu1_1": (2, 8, 32, 48), "relu2_2": (2, 12, 16, 24), "relu3_1": (2, 16, 8, 12)}


def test_first_feature_is_the_normalised_convolution() -> None:
    weights = tiny_vgg_weights()
    picture = torch.rand(1, 3, 8, 8)
    got = LossNetwork(weights, ["relu1_1"])(picture)["relu1_1"]
    mean, std = (torch.tensor(v)[None, :, None, None] for v in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
    padded = torch.nn.functional.pad((picture - mean) / std, (1, 1, 1, 1), mode="reflect")
    expected = torch.nn.functional.conv2d(padded, weights["features.0.weight"], weights["features.0.bias"]).relu()
    torch.testing.assert_close(got, expected)


def test_nothing_in_it_is_trained() -> None:
    assert not any(p.requires_grad for p in LossNetwork(tiny_vgg_weights(), ["relu1_1"]).parameters())


def test_vgg16_is_told_by_its_keys() -> None:
    weights = tiny_vgg_weights()
    for index, num_in in ((12, 16), (14, 16), (17, 16)):  # conv3_2, conv3_3 and conv4_1 of VGG-16
        weights[f"features.{index}.weight"] = torch.zeros(16, num_in, 3, 3)
        weights[f"features.{index}.bias"] = torch.zeros(16)
    network = LossNetwork(weights, ["relu4_1"])
    assert network.architecture == "vgg16"
    assert network(torch.rand(1, 3, 32, 32))["relu4_1"].shape == (1, 16, 4, 4)


def test_rejects_layers_beyond_cut_weights() -> None:
    with pytest.raises(ValueError, match=r"have no relu4_1: they reach relu1_1 ... relu3_1"):
        LossNetwork(tiny_vgg_weights(), ["relu1_1", "relu4_1"])


def test_cut_weights_give_the_layers_they_have_and_say_so(caplog: pytest.LogCaptureFixture) -> None:
    weights = tiny_vgg_weights()
    assert available_layers(weights) == ("relu1_1", "relu1_2", "relu2_1", "relu2_2", "relu3_1")
    assert usable_layers(weights, ["relu1_1", "relu3_1"]) == ("relu1_1", "relu3_1")
    assert not caplog.records
    assert usable_layers(weights, ["relu1_1", "relu4_1"]) == ("relu1_1",)
    assert "the loss weights end at relu3_1: relu4_1 is not used" in caplog.text
    with pytest.raises(ValueError, match=r"none of relu4_1, relu5_1: they reach relu1_1 ... relu3_1"):
        usable_layers(weights, ["relu4_1", "relu5_1"])
    with pytest.raises(ValueError, match=r"relu9_1 is no VGG layer"):
        usable_layers(weights, ["relu1_1", "relu9_1"])


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_reads_both_file_kinds(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"vgg{suffix}"
    save_file(tiny_vgg_weights(), path) if suffix == ".safetensors" else torch.save(tiny_vgg_weights(), path)
    got = loss_weights_from_file(path)
    assert torch.equal(got["features.5.weight"], tiny_vgg_weights()["features.5.weight"])


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_rejects_damaged_and_foreign_files(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"vgg{suffix}"
    with pytest.raises(ValueError, match="no such file with loss weights"):
        loss_weights_from_file(path)
    path.write_bytes(b"\x00\x01 not weights at all")
    with pytest.raises(ValueError, match="cannot be read as loss weights"):
        loss_weights_from_file(path)
    other = {"layer.weight": torch.zeros(1)}
    save_file(other, path) if suffix == ".safetensors" else torch.save(other, path)
    with pytest.raises(ValueError, match="holds no VGG weights"):
        loss_weights_from_file(path)
    # torchvision's vgg19_bn: a batch norm after each convolution moves the next ones away from where VGG-19 has them.
    batch_norm = {}
    for index, moved in {0: 0, 2: 3, 5: 7, 7: 10, 10: 14}.items():
        for kind in ("weight", "bias"):
            batch_norm[f"features.{moved}.{kind}"] = tiny_vgg_weights()[f"features.{index}.{kind}"]
    save_file(batch_norm, path) if suffix == ".safetensors" else torch.save(batch_norm, path)
    with pytest.raises(ValueError, match="give torchvision's vgg16 or vgg19, not vgg19_bn"):
        loss_weights_from_file(path)


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A model host on this machine; the weights' name carries their hash, as the real one's does."""
    buffer = io.BytesIO()
    torch.save(tiny_vgg_weights(), buffer)
    name = f"vgg19-{hashlib.sha256(buffer.getvalue()).hexdigest()[:8]}.pth"
    (tmp_path / "host").mkdir()
    (tmp_path / "host" / name).write_bytes(buffer.getvalue())
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "cache"))
    handler = partial(SimpleHTTPRequestHandler, directory=tmp_path / "host")
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/{name}"
        server.shutdown()
        thread.join()


def test_downloads_once_and_then_reads_the_cache(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(loss_network._URLS, "vgg19", host)
    assert "features.0.weight" in loss_weights_from_hub()
    # Port 9 (discard) is closed: only the cache can answer now.
    monkeypatch.setitem(loss_network._URLS, "vgg19", f"http://127.0.0.1:9/{Path(host).name}")
    assert "features.0.weight" in loss_weights_from_hub()


def test_offline_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setitem(loss_network._URLS, "vgg19", "http://127.0.0.1:9/vgg19-dcbb9e9d.pth")
    with pytest.raises(ValueError, match=r"give a file with --loss-weights, or put that file at .*checkpoints"):
        loss_weights_from_hub()


def test_flat_content_does_not_make_every_stroke_a_disaster(tmp_path: Path) -> None:
    target = StyleTarget(tiny_config(tmp_path), torch.device("cpu"), torch.float32)
    strokes = torch.from_numpy(draw_scene(5, height=64, width=64).copy()).permute(2, 0, 1)[None].float() / 255
    asphalt = (
        0.02 * strokes + torch.tensor([0.485, 0.456, 0.406])[:, None, None]
    ).contiguous()  # the loss network's zero
    mix = torch.ones(1, 1)
    on_asphalt = target.losses(strokes, asphalt, mix)["content"].item()
    on_picture = target.losses(strokes, strokes.flip(3), mix)["content"].item()
    assert on_asphalt < 50 * on_picture


def test_download_of_something_else_is_refused(host: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    other = Path(host).name.replace("vgg19-", "vgg19-0")
    (tmp_path / "host" / Path(host).name).rename(tmp_path / "host" / other)
    monkeypatch.setitem(loss_network._URLS, "vgg19", host.replace(Path(host).name, other))
    with pytest.raises(
        ValueError, match=r"cannot download .* \(invalid hash value .*: give a file with --loss-weights"
    ):
        loss_weights_from_hub()


def test_host_that_does_not_answer_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(loss_network, "_PATIENCE_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/vgg19-dcbb9e9d.pth"
        monkeypatch.setitem(loss_network._URLS, "vgg19", url)
        with pytest.raises(ValueError, match=r"cannot download .*(no answer within 0.2 s|timed out)"):
            loss_weights_from_hub()
