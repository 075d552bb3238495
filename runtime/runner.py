"""One contract for every backend that can run a model."""

from abc import ABC, abstractmethod
from enum import StrEnum
from types import TracebackType
from typing import Generic, Self, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from stylize.runtime.artifact import Artifact
from stylize.runtime.contract import ModelContract

__all__ = ["Backend", "HostArray", "HostRunner", "Runner", "open_runner"]

HostArray: TypeAlias = NDArray[np.float32] | NDArray[np.float16]
"""A C-contiguous array in host memory, of the type the contract's `precision` names."""

BufferT = TypeVar("BufferT")


class Backend(StrEnum):
    """What executes the network."""

    ONNXRUNTIME = "onnxruntime"


class Runner(ABC, Generic[BufferT]):
    """A loaded model that maps one batch of pictures to another.

    `BufferT` is where the backend works: `HostArray` for those on the CPU, device memory for those on
    a GPU. A runner holds memory and threads, so it is a context manager; it is used by one thread at a time.
    """

    def __init__(self, artifact: Artifact) -> None:
        """Remember what to load; `activate` loads it."""
        self.artifact = artifact

    @property
    def contract(self) -> ModelContract:
        """What the model promises: names, size multiple, range, layout, precision."""
        return self.artifact.contract

    @property
    @abstractmethod
    def description(self) -> str:
        """Backend, version and device really in use, for the report."""

    @abstractmethod
    def activate(self) -> None:
        """Load the model and take the memory it needs.

        Raises:
            BackendUnavailableError: the backend's package or device is missing.
            ArtifactError: the backend refuses the model.
        """

    @abstractmethod
    def enqueue(self, source: BufferT, *, target: BufferT, cuda_stream: int | None) -> None:
        """Run one pass from `source` into `target`.

        Both hold (N, 3, H, W) pictures as the contract says (own models: RGB in [0, 1]), with H and W
        multiples of `contract.size_multiple`. They stay the caller's and must not overlap.

        On the CPU `cuda_stream` is None and the pass is over on return. On a GPU it is the handle of the
        stream on which `source` is read and `target` written; the call returns before that has
        happened, and both must live until the stream passes this point.

        Raises:
            BackendError: the backend failed, for example out of memory.
        """

    @abstractmethod
    def close(self) -> None:
        """Free everything; calling it again is harmless."""

    def __enter__(self) -> Self:
        self.activate()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


HostRunner: TypeAlias = Runner[HostArray]
"""A runner that takes NumPy arrays and `cuda_stream=None`."""


def open_runner(artifact: Artifact, *, backend: Backend = Backend.ONNXRUNTIME, num_threads: int = 0) -> HostRunner:
    """A runner for `artifact`, not yet active; imports only the chosen backend.

    Args:
        artifact: the model.
        backend: what executes it.
        num_threads: threads for one pass; 0 leaves the choice to the backend.

    Raises:
        BackendUnavailableError: the backend's package is not installed.
    """
    match backend:
        case Backend.ONNXRUNTIME:
            from stylize.runtime.runner_onnxruntime import OnnxRuntimeRunner

            return OnnxRuntimeRunner(artifact, num_threads=num_threads)
