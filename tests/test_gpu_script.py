"""The script for a machine with a GPU, without one: what becomes of parts that fail, hang or die; wheels made thin."""

import json
import struct
import sys
import time
import zipfile
from pathlib import Path
from types import ModuleType

import pytest

from helpers.scripts import load_script

HERE = Path(__file__).parent / "gpu"
ENDLESS = "import time; print('begun', flush=True); time.sleep(60)"
KILLED = "import os, signal; print('begun', flush=True); os.kill(os.getpid(), signal.SIGKILL)"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    script = load_script(HERE / "run.py")

    def python(code: str) -> object:
        return lambda _folder, limit_seconds: {"output": script.command([sys.executable, "-c", code], limit_seconds)}

    def wrong(_folder: Path, _limit_seconds: float) -> dict[str, object]:
        raise KeyError("a mistake in the script itself")

    def measured(folder: Path, limit_seconds: float) -> dict[str, object]:
        code = "import sys, time; open(sys.argv[1], 'w').write('{\"rows\": 3}'); time.sleep(60)"
        (folder / "slow.py").write_text(code)
        return dict(script.measured(str(folder / "slow.py"), folder / "slow.json", limit_seconds))

    parts = {
        "fails": (30, python("import sys; print('why'); sys.exit(3)")),
        "hangs": (4, python(ENDLESS)),
        "dies": (30, python(KILLED)),
        "is wrong": (30, wrong),
        "is cut off": (4, measured),
        "works": (30, python("print(7)")),
    }
    monkeypatch.setattr(script, "PARTS", parts)
    monkeypatch.setattr(script, "SITE", tmp_path / "site")
    return script


def test_no_part_stops_another_and_all_is_written(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["run.py", str(tmp_path / "out")])
    started = time.monotonic()
    assert script.main() == 1
    assert time.monotonic() - started < 50, "what hangs is ended"
    parts = {part["name"]: part for part in json.loads((tmp_path / "out" / "run.json").read_text())["parts"]}
    assert {name: part["status"] for name, part in parts.items()} == {
        "fails": "failed",
        "hangs": "timed out",
        "dies": "failed",
        "is wrong": "failed",
        "is cut off": "timed out",
        "works": "ok",
    }
    assert parts["fails"]["reason"] == "why\n"
    assert parts["hangs"]["reason"] == "after 4 s; begun\n"
    assert parts["dies"]["reason"].startswith("begun")
    assert parts["is wrong"]["reason"] == "KeyError: 'a mistake in the script itself'"
    assert parts["is cut off"]["facts"] == {"rows": 3}
    assert parts["works"]["facts"] == {"output": "7\n"}


def test_the_time_given_is_kept(script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["run.py", str(tmp_path), "hangs", "works"])
    monkeypatch.setenv("MINUTES", str(16 / 60))
    assert script.main() == 1
    parts = json.loads((tmp_path / "run.json").read_text())["parts"]
    assert [(part["status"], part["reason"]) for part in parts] == [
        ("timed out", "after 4 s; begun\n"),
        ("skipped", "no time was left"),
    ]


def test_without_a_gpu_parts_are_skipped_unless_one_is_required(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = load_script(HERE / "run.py")

    def no_gpu() -> None:
        raise script.Skipped("no NVIDIA driver on this machine")

    monkeypatch.setattr(script, "need_gpu", no_gpu)
    monkeypatch.setattr(sys, "argv", ["run.py", str(tmp_path), "PyCUDA", "video", "tests"])
    assert script.main() == 0
    monkeypatch.setenv("FAIL_WITHOUT_GPU", "1")
    assert script.main() == 1
    statuses = [part["status"] for part in json.loads((tmp_path / "run.json").read_text())["parts"]]
    assert statuses == ["failed", "skipped", "failed"], "video engines may be missing: data-centre GPUs have no NVENC"


def test_a_thin_wheel_keeps_the_code_of_one_gpu(tmp_path: Path) -> None:
    script = load_script(HERE / "thin_wheel.py")

    def code(architecture: int, text: bytes) -> bytes:
        return script.ENTRY.pack(2, 0, 64, len(text), 0, 0, 0, 0, architecture) + bytes(32) + text

    pieces = {(80, b"add 80"), (90, b"add 90"), (90, b"flash_fwd 90"), (120, b"add 120")}
    binary = b"".join(code(*piece) for piece in sorted(pieces))
    library = b"host .nv_fatbin\0" + script.MAGIC + struct.pack("<Q", len(binary)) + binary + b"more of the host"
    wheel, folder = tmp_path / "cuda-1-py3-none-any.whl", tmp_path / "thin"
    folder.mkdir()
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("cuda/library.so", library)
        archive.writestr("cuda/plain.py", "pass")
        archive.writestr("cuda-1.dist-info/RECORD", "")
    script.main(wheel, "9.0", folder)
    with zipfile.ZipFile(folder / wheel.name) as archive:
        thin = archive.read("cuda/library.so")
        assert [line.split(",")[0] for line in archive.read("cuda-1.dist-info/RECORD").decode().splitlines()] == [
            "cuda/library.so",
            "cuda/plain.py",
            "cuda-1.dist-info/RECORD",
        ]
    assert len(thin) == len(library)
    assert thin.startswith(b"host") and thin.endswith(b"more of the host")
    assert [text in thin for text in (b"add 80", b"add 90", b"flash_fwd", b"add 120")] == [False, True, False, False]
