"""The `.plan` file: an engine, the ONNX it was built from, and a header that says what both are.

Layout, integers little-endian: magic (8 bytes), format version (u32), length of the header (u32),
SHA-256 of the header (32 bytes), the header as JSON, the ONNX, the engine. The header gives length and
SHA-256 of both payloads, so a damaged or cut file is found before anything is made of it, and reading
the header reads nothing else. The ONNX is what makes the file outlive its GPU: an engine runs on the
kind of GPU and the version it was built for, the ONNX anywhere.
"""

import dataclasses
import hashlib
import json
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from stylize.runtime.contract import ModelContract
from stylize.runtime.errors import ArtifactError, OutputMediaError
from stylize.runtime.partial_file import PartialFile

__all__ = [
    "Builder",
    "EnginePrecision",
    "EngineProfile",
    "HardwareCompatibility",
    "Plan",
    "PlanHeader",
    "is_bare_engine",
    "is_plan",
    "pack_plan",
    "read_plan",
    "version_key",
    "write_plan",
]

Builder = Literal["tensorrt", "tensorrt_rtx"]
HardwareCompatibility = Literal["none", "same_compute_capability", "ampere_plus"]
EnginePrecision = Literal["fp32", "fp16", "int8"]

_MAGIC: Final = b"\x89STYLZ\r\n"  # as PNG's: not text, and broken by whatever rewrites line ends
_FORMAT_VERSION: Final = 1
_PREFIX: Final = struct.Struct("<8sII32s")
_MAX_HEADER_BYTES: Final = 1 << 20  # real ones have 2 kB; more is damage, not to be allocated
# First bytes of what the builders of TensorRT and of TensorRT-RTX return, seen in 10.x and 1.7.
_ENGINE_MAGICS: Final = (b"ftrt", b"vtrt")


@dataclass(frozen=True, kw_only=True)
class EngineProfile:
    """Input shapes (N, 3, H, W) an engine accepts and the one it is fastest at."""

    min: tuple[int, int, int, int]
    opt: tuple[int, int, int, int]
    max: tuple[int, int, int, int]

    def __post_init__(self) -> None:
        for name in ("min", "opt", "max"):
            shape = getattr(self, name)
            if len(shape) != 4 or not all(isinstance(side, int) and side >= 1 for side in shape):
                raise ValueError(f"profile {name}={shape} must be four positive numbers (N, 3, H, W)")
        for low, middle, high in zip(self.min, self.opt, self.max, strict=True):
            if not low <= middle <= high:
                raise ValueError(f"profile min={self.min} <= opt={self.opt} <= max={self.max} must hold for every axis")

    @property
    def is_static(self) -> bool:
        """Whether only one shape is accepted."""
        return self.min == self.max


@dataclass(frozen=True, kw_only=True)
class PlanHeader:
    """What a plan file says about itself."""

    contract: ModelContract
    """What the model promises; its `precision` is the type of input and output."""
    builder: Builder
    """Name of the module that built the engine."""
    builder_version: str
    """Its version, e.g. `10.13.3.9`."""
    gpu: str
    """Name of the GPU it was built on; empty when it was built ahead of time, without one."""
    compute_capabilities: tuple[str, ...]
    """What it was built for, e.g. `("9.0",)`; several only by TensorRT-RTX."""
    profile: EngineProfile
    precision: EnginePrecision
    """What the network computes in; norm statistics are float32 in all of them."""
    hardware_compatibility: HardwareCompatibility = "none"
    is_version_compatible: bool = False
    verification: dict[str, dict[str, float]] = field(default_factory=dict)
    """Measured figures by what was proven: `onnx` against the float32 original, `engine` against `onnx`.

    What is absent was not proven.
    """
    onnx_bytes: int = 0
    onnx_sha256: str = ""
    engine_bytes: int = 0
    engine_sha256: str = ""

    def __post_init__(self) -> None:
        if self.builder not in ("tensorrt", "tensorrt_rtx"):
            raise ValueError(f"builder={self.builder!r} must be tensorrt or tensorrt_rtx")
        if self.precision not in ("fp32", "fp16", "int8"):
            raise ValueError(f"precision={self.precision!r} must be fp32, fp16 or int8")
        if self.hardware_compatibility not in ("none", "same_compute_capability", "ampere_plus"):
            raise ValueError(f"hardware_compatibility={self.hardware_compatibility!r} is unknown")

    def misfit(self, *, version: str, gpu: str, compute_capability: str) -> str:
        """Why the engine does not fit a machine, in a few words for the user; empty when it does.

        Args:
            version: of the builder's module installed there.
            gpu: name of the GPU.
            compute_capability: of the GPU, e.g. `8.9`.
        """
        has_newer = version_key(version) > version_key(self.builder_version)
        if version != self.builder_version and not (self.is_version_compatible and has_newer):
            return f"built with {self.builder} {self.builder_version}, installed is {version}"
        built_for = " and ".join(self.compute_capabilities)
        if self.builder == "tensorrt" and self.hardware_compatibility == "ampere_plus":
            fits = version_key(compute_capability) >= version_key("8.0")
            built_for = "8.0 and above"
        else:
            fits = compute_capability in self.compute_capabilities
        if not fits:
            return f"built for compute capability {built_for}, {gpu} has {compute_capability}"
        if self.builder == "tensorrt" and self.hardware_compatibility == "none" and gpu != self.gpu:
            return f"built on {self.gpu}, this is {gpu}"
        return ""

    def to_json(self) -> str:
        """The header as one line of JSON with sorted keys."""
        return json.dumps(dataclasses.asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> "PlanHeader":
        """Read what `to_json` wrote.

        Raises:
            ValueError: not JSON, an unknown or missing field, or a value that cannot be.
        """
        try:
            fields: dict[str, Any] = json.loads(text)
            contract = ModelContract.from_json(json.dumps(fields.pop("contract")))
            profile = EngineProfile(**{name: tuple(shape) for name, shape in fields.pop("profile").items()})
            capabilities = tuple(fields.pop("compute_capabilities"))
            return cls(contract=contract, profile=profile, compute_capabilities=capabilities, **fields)
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"does not fit format {_FORMAT_VERSION}: {error}") from error


@dataclass(frozen=True)
class Plan:
    """A plan file whose header was read and whose length is right; the payloads are still on disk."""

    path: Path
    header: PlanHeader
    payload_offset: int

    def read_onnx(self) -> bytes:
        """The model the engine was built from.

        Raises:
            ArtifactError: the file changed or is damaged.
        """
        return self._read("ONNX", self.payload_offset, self.header.onnx_bytes, self.header.onnx_sha256)

    def read_engine(self) -> bytes:
        """The engine, as the builder returned it.

        Raises:
            ArtifactError: the file changed or is damaged.
        """
        offset = self.payload_offset + self.header.onnx_bytes
        return self._read("engine", offset, self.header.engine_bytes, self.header.engine_sha256)

    def _read(self, name: str, offset: int, length: int, sha256: str) -> bytes:
        try:
            with self.path.open("rb") as file:
                file.seek(offset)
                data = file.read(length)
        except OSError as error:
            raise ArtifactError(self.path, f"cannot be read: {error.strerror}") from error
        if hashlib.sha256(data).hexdigest() != sha256:
            raise ArtifactError(self.path, f"is damaged: the {name} inside has another SHA-256 than its header says")
        return data


def is_plan(path: Path) -> bool:
    """Whether the file begins as a plan does; whether it is whole is for `read_plan` to find.

    Raises:
        OSError: the file cannot be read.
    """
    return _first_bytes(path, len(_MAGIC)) == _MAGIC


def is_bare_engine(path: Path) -> bool:
    """Whether the file begins as an engine without a container does, as `trtexec` writes it.

    Raises:
        OSError: the file cannot be read.
    """
    return _first_bytes(path, 4) in _ENGINE_MAGICS


def read_plan(path: Path) -> Plan:
    """Read and check the header of a plan file.

    Raises:
        ArtifactError: not a plan, cut off, damaged, or written by a later version.
    """
    try:
        with path.open("rb") as file:
            prefix = file.read(_PREFIX.size)
            if len(prefix) < _PREFIX.size or not prefix.startswith(_MAGIC):
                raise ArtifactError(path, "is not a plan file of stylize-export, or is cut off at its beginning")
            _, version, header_length, header_sha256 = _PREFIX.unpack(prefix)
            if version > _FORMAT_VERSION:
                raise ArtifactError(
                    path,
                    f"has plan format {version}, this stylize reads {_FORMAT_VERSION}: update stylize or export again",
                )
            text = file.read(min(header_length, _MAX_HEADER_BYTES))
            file_length = file.seek(0, 2)
    except OSError as error:
        raise ArtifactError(path, f"cannot be read: {error.strerror}") from error
    if hashlib.sha256(text).digest() != header_sha256:
        raise ArtifactError(path, "is damaged or cut off: its header has another SHA-256 than it says")
    try:
        header = PlanHeader.from_json(text.decode())
    except ValueError as error:
        raise ArtifactError(path, f"its header {error}") from error
    offset = _PREFIX.size + header_length
    expected = offset + header.onnx_bytes + header.engine_bytes
    if file_length != expected:
        problem = "cut off" if file_length < expected else "longer than it says"
        raise ArtifactError(path, f"is {problem}: {file_length} bytes, its header announces {expected}")
    return Plan(path, header, offset)


def pack_plan(header: PlanHeader, *, onnx: bytes, engine: bytes) -> tuple[PlanHeader, bytes]:
    """The header with lengths and hashes set, and the bytes of the whole file.

    Args:
        header: what is said of both.
        onnx: the serialized model the engine was built from.
        engine: what the builder returned.
    """
    header = dataclasses.replace(
        header,
        onnx_bytes=len(onnx),
        onnx_sha256=hashlib.sha256(onnx).hexdigest(),
        engine_bytes=len(engine),
        engine_sha256=hashlib.sha256(engine).hexdigest(),
    )
    text = header.to_json().encode()
    prefix = _PREFIX.pack(_MAGIC, _FORMAT_VERSION, len(text), hashlib.sha256(text).digest())
    return header, b"".join((prefix, text, onnx, engine))


def write_plan(path: Path, header: PlanHeader, *, onnx: bytes, engine: bytes) -> PlanHeader:
    """Write what `pack_plan` makes; the file appears under its name when it is complete.

    Returns:
        The header as written.

    Raises:
        OutputMediaError: the file cannot be written.
    """
    header, packed = pack_plan(header, onnx=onnx, engine=engine)
    with PartialFile(path) as partial:
        try:
            partial.path.write_bytes(packed)
        except OSError as error:
            raise OutputMediaError(path, f"cannot be written: {error.strerror}") from error
        partial.commit()
    return header


def _first_bytes(path: Path, count: int) -> bytes:
    with path.open("rb") as file:
        return file.read(count)


def version_key(version: str) -> tuple[int, ...]:
    """Numbers to compare versions and compute capabilities by."""
    return tuple(int(part) for part in version.split(".") if part.isdigit())
