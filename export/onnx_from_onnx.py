"""From a given ONNX file to one of the project's own kind: adopted, rewritten, typed, proven against the given one."""

import dataclasses
import hashlib
import tempfile
from dataclasses import dataclass
from pathlib import Path

import onnx
from numpy import uint8
from numpy.typing import NDArray

from stylize.export.adopt import adopted_graph
from stylize.export.onnx_from_network import seal_contract
from stylize.export.precision import half_from_float
from stylize.export.rewrite import RewriteCounts, rewrite
from stylize.export.verify import FrameFidelity, check_floor, figures_of, verification_frames
from stylize.export.verify_onnx import compare_models
from stylize.runtime.artifact import Artifact, open_artifact
from stylize.runtime.contract import ModelContract, Precision
from stylize.runtime.errors import EngineBuildError, OptionError

__all__ = ["ProvenOnnx", "onnx_from_onnx"]


@dataclass(frozen=True, kw_only=True)
class ProvenOnnx:
    """A model that was run against its original and painted the same."""

    data: bytes
    """The file, with its contract and the measured figures inside."""
    contract: ModelContract
    results: list[FrameFidelity]
    rewrites: RewriteCounts
    """What was rewritten; nothing where it was not asked for."""


def onnx_from_onnx(
    artifact: Artifact,
    *,
    precision: Precision,
    size: tuple[int, int] | None = None,
    style: str | None = None,
    has_rewrites: bool = True,
    given_frames: dict[str, NDArray[uint8]] | None = None,
) -> ProvenOnnx:
    """Adopt, rewrite, type and prove one model.

    Args:
        artifact: the given model; a plan's inside is taken, a foreign one becomes one of our own kind.
        precision: element type of input, output and weights; norm statistics stay float32 in `fp16`, and the
            integers of an int8 model what they are.
        size: (width, height) in pixels of the only frames to accept, rounded up to the model's multiple since
            the runtime pads. None keeps what it accepts.
        style: name in the contract; None keeps its own.
        has_rewrites: apply the exact rewrites of `stylize.export.rewrite`.
        given_frames: (H, W, 3) uint8 RGB by name to verify on, besides drawn ones.

    Raises:
        ValueError: the model differs from the given one.
        OptionError: a precision or size that cannot be made of this model.
        StylizeError: the graph cannot be adopted, typed or run.
    """
    given = artifact.contract
    if given.precision == "fp16" and precision == "fp32":
        raise OptionError(f"{artifact.path}: is float16 already, float32 cannot be had back; drop fp32")
    contract = _contract(artifact, size=size, style=style, precision=precision)
    try:
        model, rewrites = _made(artifact, contract, has_rewrites=has_rewrites)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        reason = " ".join(str(error).split())
        raise EngineBuildError(f"{artifact.path}: its graph breaks ONNX's own rules: {reason}") from error
    frames = verification_frames(contract.fixed_size) | (given_frames or {})
    with tempfile.TemporaryDirectory(prefix="stylize-") as folder:
        candidate = Path(folder) / "candidate.onnx"
        candidate.write_bytes(seal_contract(model, contract))
        results = list(compare_models(artifact, open_artifact(candidate), frames))
    # In half precision a value next to a step may go to the neighbouring integer, in every layer.
    check_floor(results, "int8" if contract.is_int8 and precision != given.precision else precision)
    contract = dataclasses.replace(contract, verification=given.verification | figures_of(results))
    return ProvenOnnx(data=seal_contract(model, contract), contract=contract, results=results, rewrites=rewrites)


def _made(artifact: Artifact, contract: ModelContract, *, has_rewrites: bool) -> tuple[onnx.ModelProto, RewriteCounts]:
    source = artifact.onnx_source()
    model = onnx.load_from_string(source) if isinstance(source, bytes) else onnx.load(source)
    model = adopted_graph(model, artifact.contract, fixed_size=contract.fixed_size)
    rewrites = RewriteCounts()
    if has_rewrites and not contract.is_int8:  # its weights are integers, which the rewrites would make floats
        model, rewrites = rewrite(model)
    if contract.precision != artifact.contract.precision:
        model = half_from_float(model)
    return model, rewrites


def _contract(
    artifact: Artifact, *, size: tuple[int, int] | None, style: str | None, precision: Precision
) -> ModelContract:
    given = artifact.contract
    fixed_size = given.fixed_size
    if size is not None:
        width, height = (-(-side // given.size_multiple) * given.size_multiple for side in size)
        if fixed_size not in (None, (width, height)):
            raise OptionError(f"{artifact.path}: takes {given.fixed_size} only, {size} cannot be chosen")
        fixed_size = (width, height)
    hashes = given.hashes
    if artifact.origin == "foreign":
        hashes = {"onnx": hashlib.sha256(artifact.path.read_bytes()).hexdigest()}
    own = ModelContract(network="", style="", size_multiple=1)
    return dataclasses.replace(
        given,
        style=style or given.style,
        fixed_size=fixed_size,
        precision=precision,
        hashes=hashes,
        **{name: getattr(own, name) for name in ("input_name", "output_name", "value_range", "layout")},
    )
