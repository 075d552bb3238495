"""What can go wrong for a user, as one tree.

Every class is also the builtin its caller would expect, so `except ValueError` works as well as
`except StylizeError`. A message says what happened, what was got, what is allowed and the next step.
"""

from pathlib import Path

__all__ = [
    "ArtifactError",
    "BackendError",
    "BackendUnavailableError",
    "EngineBuildError",
    "InputMediaError",
    "OptionError",
    "OutputMediaError",
    "OutputMismatchError",
    "StylizeError",
]


class StylizeError(Exception):
    """Base of every error this project raises on purpose; its text is one line meant for the user."""


class ArtifactError(StylizeError, ValueError):
    """A model file is missing, damaged, not a model, or its contract cannot be deduced.

    Attributes:
        path: the file as given.
    """

    def __init__(self, path: Path, problem: str) -> None:
        super().__init__(f"{path}: {problem}")
        self.path = path


class InputMediaError(StylizeError, ValueError):
    """An input video or picture is missing, not media, or breaks off where nothing can be decoded.

    Attributes:
        path: the input as given.
    """

    def __init__(self, path: str | Path, problem: str) -> None:
        super().__init__(f"{path}: {problem}")
        self.path = path


class OutputMediaError(StylizeError, OSError):
    """The output cannot be written: no such folder, disk full, or a codec the container refuses.

    Attributes:
        path: the output as asked for.
    """

    def __init__(self, path: str | Path, problem: str) -> None:
        super().__init__(f"{path}: {problem}")
        self.path = path


class OutputMismatchError(StylizeError, RuntimeError):
    """The finished file differs from its input in frames, duration or streams."""


class BackendUnavailableError(StylizeError, ImportError):
    """A backend was asked for whose package or device this machine lacks."""


class BackendError(StylizeError, RuntimeError):
    """A backend failed while running the network."""


class EngineBuildError(StylizeError, RuntimeError):
    """TensorRT cannot read or build a model."""


class OptionError(StylizeError, ValueError):
    """An option has a value outside its range, or contradicts another."""
