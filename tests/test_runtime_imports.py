"""What importing the runtime may cost: nothing but its own few dependencies."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import stylize.runtime

FOLDER = Path(stylize.runtime.__file__).parent
ALLOWED = {"av", "click", "numpy", "rich"}
LAZY = {"onnxruntime", "openvino"}


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.py")), ids=lambda path: path.name)
def test_module_imports_only_what_is_allowed(path: Path) -> None:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module or "")
    siblings = {name for name in names if name.startswith("stylize.") and not name.startswith("stylize.runtime")}
    assert not siblings
    foreign = {name.partition(".")[0] for name in names} - set(sys.stdlib_module_names) - {"stylize"}
    assert foreign <= ALLOWED


def test_import_loads_no_backend() -> None:
    code = "import sys, stylize.runtime.cli; print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not LAZY & set(loaded)
    assert not {"torch", "onnx", "cv2"} & set(loaded)
