"""The wheel holds what the repository holds."""

import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("train", "export", "runtime", "benchmarks")
# Notes and results are for readers of the repository.
NOT_SHIPPED = {"results"}


def _source_files() -> set[str]:
    """Files of the four folders as they are named inside the package."""
    files = (path.relative_to(ROOT) for folder in FOLDERS for path in (ROOT / folder).rglob("*") if path.is_file())
    return {
        f"stylize/{path.as_posix()}"
        for path in files
        if "__pycache__" not in path.parts and not NOT_SHIPPED & set(path.parts) and not path.name.startswith(".")
    }


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    folder = tmp_path_factory.mktemp("wheel")
    copy = folder / "copy"  # a build leaves files beside the sources
    copy.mkdir()
    for name in (*FOLDERS, "pyproject.toml", "README.md", "LICENSE"):
        source = ROOT / name
        shutil.copytree(source, copy / name) if source.is_dir() else shutil.copy(source, copy / name)
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        str(folder),
        ".",
    ]
    subprocess.run(command, cwd=copy, check=True)
    return zipfile.ZipFile(next(folder.glob("stylize-*.whl")))


def test_wheel_holds_every_source_and_data_file(wheel: zipfile.ZipFile) -> None:
    packed = {name for name in wheel.namelist() if name.startswith("stylize/")}
    assert packed == _source_files()


def test_types_of_the_runtime_are_there_for_who_uses_it(wheel: zipfile.ZipFile) -> None:
    assert "stylize/runtime/py.typed" in wheel.namelist()


def test_wheel_has_the_four_commands(wheel: zipfile.ZipFile) -> None:
    entry_points = next(name for name in wheel.namelist() if name.endswith("entry_points.txt"))
    commands = [line.split(" = ")[0] for line in wheel.read(entry_points).decode().splitlines() if " = " in line]
    assert commands == ["stylize-bench", "stylize-export", "stylize-run", "stylize-train"]


@pytest.mark.parametrize(("command", "missing"), [("train", "torch"), ("export", "onnx"), ("bench", "jsonschema")])
def test_command_without_its_packages_is_one_line(command: str, missing: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    module = project["scripts"][f"stylize-{command}"].removesuffix(":main")
    code = f"import sys; sys.modules[{missing!r}] = None; from {module} import main; main()"
    result = subprocess.run([sys.executable, "-c", code, "--help"], capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert result.stderr.startswith(f"stylize-{command}: error: {missing} is not installed: pip install ")
    assert len(result.stderr.splitlines()) == 1


def test_constraints_pin_every_dependency() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lists = (
        project["dependencies"],
        *(extra for name, extra in project["optional-dependencies"].items() if name not in ("gpu", "trt")),
    )
    wanted = {requirement.partition(">")[0] for extra in lists for requirement in extra if "[" not in requirement}
    pinned = {
        line.partition("==")[0]
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if not line.startswith("#")
    }
    assert wanted == pinned


def test_dockerfile_names_what_there_is() -> None:
    """Extras, commands and versions; nothing here can build it."""
    text, project = (ROOT / "Dockerfile").read_text(), tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = re.findall(r"/src\[([a-z,]+)\]", text)
    assert len(extras) == 1
    assert {"gpu", "trt"} <= set(extras[0].split(",")) <= set(project["optional-dependencies"])
    assert set(re.findall(r"\bstylize-(?:run|export|train|bench)\b", text)) <= set(project["scripts"])
    pins = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line)
    assert re.search(r"onnxruntime-gpu==(\S+)", text)[1] == pins["onnxruntime"]  # type: ignore[index]
    images = re.findall(r"^FROM (\S+?)(?: AS build)?$", text, re.MULTILINE)
    assert images == [f"nvidia/cuda:${{CUDA}}-{kind}-ubuntu24.04" for kind in ("devel", "base")]
    copied = re.findall(r"^COPY (?!--from)(\S+)", text, re.MULTILINE)
    assert copied == ["."]
    left_out = (ROOT / ".dockerignore").read_text().split()
    assert {".git", ".venv", "build"} <= set(left_out)
