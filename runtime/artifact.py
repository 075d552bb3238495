"""Finds the model a user names: an ONNX file, a plan or a built-in style, with the contract it promises."""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from importlib import resources
from pathlib import Path
from typing import Literal

from stylize.runtime import models
from stylize.runtime.contract import CONTRACT_KEY, ModelContract, Precision
from stylize.runtime.errors import ArtifactError, OptionError
from stylize.runtime.onnx_header import OnnxHeader, TensorInfo, read_onnx_header
from stylize.runtime.plan import Plan, is_bare_engine, is_plan, read_plan
from stylize.runtime.still import STILL_SUFFIXES

__all__ = ["Artifact", "BuiltinStyle", "Quality", "builtin_style", "builtin_styles", "open_artifact"]

_PRECISIONS: dict[int, Precision] = {1: "fp32", 10: "fp16"}  # TensorProto.DataType

_ENGINE_SUFFIXES = {".plan", ".engine", ".trt"}

# A foreign graph does not say how often it halves its picture; 16 covers four times, the most found
# in published image-to-image networks, and costs at most 15 mirrored rows and columns.
_FOREIGN_SIZE_MULTIPLE = 16


@dataclass(frozen=True, kw_only=True)
class Artifact:
    """A model file and what it promises; nothing is loaded yet."""

    name: str
    """Style name of a built-in, else the file's stem."""
    path: Path
    contract: ModelContract
    origin: Literal["builtin", "file", "foreign"]
    """`foreign` is a file without our contract, adopted by what its graph says."""
    plan: Plan | None = None
    """The header of a `.plan` file, else None."""
    is_bare_engine: bool = False
    """A TensorRT engine without container: only its runner can read the real contract, this one is a guess."""

    def onnx_source(self) -> Path | bytes:
        """The ONNX model: where it lies, or for a plan the bytes inside.

        Raises:
            ArtifactError: a bare engine holds none, or the plan is damaged.
        """
        if self.is_bare_engine:
            raise ArtifactError(
                self.path,
                "is a bare TensorRT engine with no ONNX inside: it runs with --backend tensorrt only; "
                "export without --raw for one that runs anywhere",
            )
        return self.path if self.plan is None else self.plan.read_onnx()


class Quality(StrEnum):
    """A variant of a built-in style: looks against speed."""

    AUTO = "auto"
    """The best looking one that keeps up with the source; see `stylize.runtime.quality`."""
    QUALITY = "quality"
    BALANCED = "balanced"
    FASTEST = "fastest"


@dataclass(frozen=True, kw_only=True)
class BuiltinStyle:
    """One style that comes with the package."""

    name: str
    path: Path
    """The balanced variant, or the only one."""
    description: str
    """One line from its card."""
    variants: Mapping[Quality, Path]
    """What there is of it, from the best looking to the fastest."""

    @property
    def thumbnail(self) -> Path:
        """A frame of the demo clip in this style, 320x180."""
        return self.path.with_suffix(".jpg")


def builtin_styles() -> tuple[BuiltinStyle, ...]:
    """The styles installed with the package, by name; `name-fastest.onnx` is a variant of `name.onnx`."""
    paths = {path.stem: path for path in sorted(_models_folder().glob("*.onnx"))}
    styles = []
    for name, path in paths.items():
        base, _, suffix = name.rpartition("-")
        if base in paths and suffix in (Quality.QUALITY, Quality.FASTEST):
            continue
        files = {
            Quality.QUALITY: paths.get(f"{name}-{Quality.QUALITY}"),
            Quality.BALANCED: path,
            Quality.FASTEST: paths.get(f"{name}-{Quality.FASTEST}"),
        }
        variants = {quality: file for quality, file in files.items() if file is not None}
        description = _card_line(path.with_suffix(".md"))
        styles.append(BuiltinStyle(name=name, path=path, description=description, variants=variants))
    return tuple(styles)


def builtin_style(name: str) -> BuiltinStyle | None:
    """The built-in style of that name; None where a file has it, or nothing."""
    if Path(name).is_file():
        return None
    return next((style for style in builtin_styles() if style.name == name), None)


def open_artifact(model: str | Path, *, input_range: tuple[float, float] | None = None) -> Artifact:
    """Find `model` and read its contract.

    Args:
        model: path of an ONNX file, a plan or a bare engine, or the name of a built-in style.
        input_range: code values of black and white, for a foreign model only; the same for its output.

    Raises:
        ArtifactError: no such file or style, not a model, or a contract that cannot be deduced.
        OptionError: `input_range` was given for a model whose contract already says it.
    """
    path = Path(model)
    if path.is_file():
        name, is_builtin = path.stem, False
    else:
        name, path, is_builtin = str(model), _builtin_path(str(model)), True
    if path.suffix.lower() in STILL_SUFFIXES:
        raise ArtifactError(
            path,
            f"a picture, not a model: `stylize-train --style {path} -o {path.stem}.pth` learns to paint like it, "
            "`stylize-run --list-styles` shows what is there already",
        )
    if path.suffix.lower() in {".pth", ".pt", ".ckpt"}:
        raise ArtifactError(path, f"a checkpoint, not a model: first `stylize-export {path} -o {path.stem}.onnx`")
    match _kind_of_file(path):
        case "bare engine":
            return _bare_engine(name, path, input_range)
        case "plan":
            plan = read_plan(path)
            _reject_range(path, input_range)
            return Artifact(name=name, path=path, contract=plan.header.contract, origin="file", plan=plan)
    try:
        header = read_onnx_header(path)
    except OSError as error:
        raise ArtifactError(path, f"cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise ArtifactError(path, f"is not a usable ONNX model: {error}") from error
    text = header.metadata.get(CONTRACT_KEY)
    if text is None:
        return Artifact(name=name, path=path, contract=_adopt(path, header, input_range), origin="foreign")
    _reject_range(path, input_range)
    try:
        contract = ModelContract.from_json(text)
    except ValueError as error:
        raise ArtifactError(path, str(error)) from error
    return Artifact(name=name, path=path, contract=contract, origin="builtin" if is_builtin else "file")


def _kind_of_file(path: Path) -> Literal["bare engine", "plan", "model"]:
    """By its first bytes, or where they say nothing by its suffix."""
    try:
        if is_bare_engine(path):
            return "bare engine"
        return "plan" if is_plan(path) or path.suffix.lower() in _ENGINE_SUFFIXES else "model"
    except OSError as error:
        raise ArtifactError(path, f"cannot be read: {error.strerror}") from error


def _bare_engine(name: str, path: Path, input_range: tuple[float, float] | None) -> Artifact:
    """An engine without container; what its tensors say is for its runner to find."""
    contract = ModelContract(
        network="foreign",
        style=path.stem,
        size_multiple=_FOREIGN_SIZE_MULTIPLE,
        value_range=input_range or (0.0, 1.0),
        precision="fp16",
    )
    return Artifact(name=name, path=path, contract=contract, origin="foreign", is_bare_engine=True)


def _reject_range(path: Path, input_range: tuple[float, float] | None) -> None:
    if input_range is not None:
        raise OptionError(f"--input-range is for models without a contract, but {path} has one: drop the option")


def _models_folder() -> Path:
    return Path(str(resources.files(models)))


def _builtin_path(name: str) -> Path:
    styles = {path.stem: path for style in builtin_styles() for path in style.variants.values()}
    if name in styles:
        return styles[name]
    path = Path(name)
    if path.is_dir():
        raise ArtifactError(path, "is a folder, expected an ONNX file or a style name")
    if path.suffix or len(path.parts) > 1:
        raise ArtifactError(path, "no such file")
    close = difflib.get_close_matches(name.lower(), styles, n=2)
    hint = f"did you mean {' or '.join(close)}?" if close else "`stylize-run --list-styles` shows the names"
    raise ArtifactError(path, f"no such file or style; {hint}")


def _adopt(path: Path, header: OnnxHeader, input_range: tuple[float, float] | None) -> ModelContract:
    """Deduce the contract of a graph that carries none."""
    source, target = _only_image(path, header.inputs, "input"), _only_image(path, header.outputs, "output")
    precision = _PRECISIONS.get(source.elem_type)
    if precision is None or target.elem_type != source.elem_type:
        raise ArtifactError(
            path, "has no contract and is not float32 or float16 at both ends; only those can be adopted"
        )
    layout: Literal["NCHW", "NHWC"] = "NCHW" if source.shape[1] == 3 else "NHWC"
    height, width = source.shape[2:] if layout == "NCHW" else source.shape[1:3]
    if input_range is None:
        raise ArtifactError(
            path, "has no contract, so black and white are unknown: say --input-range 0..255 or --input-range 0..1"
        )
    return ModelContract(
        network="foreign",
        style=path.stem,
        size_multiple=1 if height and width else _FOREIGN_SIZE_MULTIPLE,
        input_name=source.name,
        output_name=target.name,
        value_range=input_range,
        layout=layout,
        precision=precision,
        fixed_size=(width, height) if height and width else None,
    )


def _only_image(path: Path, tensors: tuple[TensorInfo, ...], role: str) -> TensorInfo:
    """The single tensor of four axes of which axis 1 or 3 holds three channels."""
    if len(tensors) != 1:
        names = ", ".join(tensor.name for tensor in tensors) or "none"
        raise ArtifactError(path, f"has no contract and {len(tensors)} {role}s ({names}); one picture was expected")
    tensor = tensors[0]
    if len(tensor.shape) != 4 or 3 not in (tensor.shape[1], tensor.shape[3]):
        # Exporters often leave the output's shape open; the input decides then.
        if role == "output" and set(tensor.shape) <= {None}:
            return tensor
        raise ArtifactError(
            path, f"has no contract and its {role} {tensor.name} has shape {tensor.shape}, expected (N, 3, H, W)"
        )
    return tensor


def _card_line(card: Path) -> str:
    """First line of text after the heading of a style's card, or nothing without a card."""
    if not card.is_file():
        return ""
    lines = (line.strip() for line in card.read_text(encoding="utf-8").splitlines())
    return next((line for line in lines if line and not line.startswith("#")), "")
