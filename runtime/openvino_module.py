"""Imports OpenVINO without letting it report home."""

import importlib
import sys
from typing import Any, Final

from stylize.runtime.errors import BackendUnavailableError

__all__ = ["import_openvino"]

_TELEMETRY: Final = "openvino_telemetry"


def import_openvino() -> Any:  # noqa: ANN401 - its stubs are skipped
    """The module `openvino`.

    Importing it sends an event to Google Analytics under an identifier that it keeps in the user's home, asked or
    not, unless a file there or the variable CI=true says otherwise. Without the package `openvino_telemetry` it takes a
    stub in its place; so that package is hidden meanwhile, unless the program at hand has imported it itself.

    Raises:
        BackendUnavailableError: it is not installed.
    """
    is_hidden = _TELEMETRY not in sys.modules
    if is_hidden:
        sys.modules[_TELEMETRY] = None  # type: ignore[assignment]  # the documented way to make an import fail
    try:
        return importlib.import_module("openvino")
    except ImportError as error:
        raise BackendUnavailableError("openvino is not installed: pip install 'stylize[openvino]'") from error
    finally:
        if is_hidden:
            del sys.modules[_TELEMETRY]
