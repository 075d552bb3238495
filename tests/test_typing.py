"""mypy in strict mode over all four packages."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_all_packages_are_typed(tmp_path: Path) -> None:
    # mypy does not see the import hook of an editable install, so it gets a tree of links.
    tree = tmp_path / "stylize"
    tree.mkdir()
    for folder in ("train", "export", "runtime", "benchmarks"):
        (tree / folder).symlink_to(ROOT / folder)
    command = [
        *(sys.executable, "-m", "mypy", "--explicit-package-bases", "--config-file", str(ROOT / "pyproject.toml")),
        *("--cache-dir", str(ROOT / ".mypy_cache"), "stylize"),
    ]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
