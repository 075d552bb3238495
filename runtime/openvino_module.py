"""OpenVINO without two of its habits: it reports home, and takes Ctrl-C away."""

import importlib
import sys
from functools import cache
from typing import Any, Final

from stylize.runtime.errors import BackendUnavailableError

__all__ = ["import_openvino", "openvino_core"]

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


@cache
def openvino_core() -> Any:  # noqa: ANN401
    """The one `openvino.Core` of this process, which is kept to its end.

    With it stays its CPU plugin. That gives the thread which loads it a stack for handlers of signals, and frees the
    stack when the last model is gone, in whichever thread that is (`SigAltStackSetup` of its plugin.cpp). If not
    in the first, that goes on using it, and its next Ctrl-C is a segmentation fault.

    Raises:
        BackendUnavailableError: OpenVINO is not installed.
    """
    return import_openvino().Core()
