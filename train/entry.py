"""Where `stylize-train` begins: the command, or one line where what it needs is not installed."""

import importlib
import sys

__all__ = ["main", "start"]

_EXTRA_MODULES = {"cv2", "onnx", "onnx_ir", "onnxruntime", "onnxscript", "platformdirs", "safetensors", "torch"}


def start(package: str) -> None:
    """Run the command of `stylize.<package>`; packages of its extras may be missing, which ends in one line."""
    try:
        command = importlib.import_module(f"stylize.{package}.cli")
    except ModuleNotFoundError as error:
        if error.name not in _EXTRA_MODULES:
            raise
        # Without the constraints pip may fetch gigabytes of CUDA packages.
        way_out = "pip install -c constraints.txt -e '.[train,export]'"
        sys.exit(f"stylize-{package}: error: {error.name} is not installed: {way_out}")
    command.main()


def main() -> None:
    """Entry point."""
    start("train")
