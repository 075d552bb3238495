"""The arrows between the packages: train <- export -> runtime <- benchmarks."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# What each package may import of the others; lazy imports inside functions count too.
ARROWS = {
    "train": set[str](),
    "export": {"train", "runtime"},
    "runtime": set[str](),
    "benchmarks": {"runtime"},
}
# The one file that may run what the others must not know: the comparison with PyTorch.
EXCEPTIONS = {"benchmarks/baseline.py": {"train", "export"}}
FILES = sorted(path for folder in ARROWS for path in (ROOT / folder).rglob("*.py"))
KERNELS = sorted(path for pattern in ("*.cu", "*.h") for path in (ROOT / "runtime").glob(pattern))


def _imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_follow_the_arrows(path: Path) -> None:
    name = path.relative_to(ROOT).as_posix()
    package = name.partition("/")[0]
    allowed = ARROWS[package] | {package} | EXCEPTIONS.get(name, set())
    imported = set(_imports(path))
    siblings = {module.split(".")[1] for module in imported if module.startswith("stylize.")}
    assert siblings <= allowed
    if package in ("runtime", "benchmarks") and name not in EXCEPTIONS:
        assert not any(module.split(".")[0] == "torch" for module in imported)


@pytest.mark.parametrize("path", [*FILES, *KERNELS], ids=lambda path: str(path.relative_to(ROOT)))
def test_files_stay_readable(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 400


def test_the_map_of_the_runtime_names_every_file_once() -> None:
    tree = ast.parse((ROOT / "runtime" / "__init__.py").read_text(encoding="utf-8"))
    lines = (ast.get_docstring(tree) or "").partition("go on with what it calls:")[2].splitlines()
    named = [name for line in lines for name in line[14:].split()]
    # A new file belongs into the docstring of runtime/__init__.py, on the line of its neighbours.
    assert sorted(named) == sorted(path.stem for path in (ROOT / "runtime").glob("[a-z]*.py"))
