"""What a model file promises about its inputs, its output and its making.

The contract is JSON in the ONNX `metadata_props` under `CONTRACT_KEY`. Whoever runs the model needs
nothing else: no side file and no knowledge of the network that was trained.
"""

import dataclasses
import json
from dataclasses import dataclass, field
from typing import Literal

__all__ = ["CONTRACT_KEY", "NOISE_INPUT", "SCHEMA_VERSION", "STYLE_WEIGHTS_INPUT", "ModelContract", "Precision"]

CONTRACT_KEY = "stylize.contract"
SCHEMA_VERSION = 1
STYLE_WEIGHTS_INPUT = "style_weights"
"""Second input of a model of several styles: (styles,) float32, the share of each; they add up to 1."""
NOISE_INPUT = "noise"
"""Second input of a model that takes noise: (1, 3, H, W) uniform in [0, 1], of the model's element type."""

Precision = Literal["fp32", "fp16"]


@dataclass(frozen=True, kw_only=True)
class ModelContract:
    """The promise of one image-to-image model.

    The defaults describe the project's own ONNX files: input `frame` and output `stylized`, both
    (N, 3, H, W), RGB in [0, 1], with every scale, offset and clamp inside the graph.
    """

    network: str
    """Architecture with its options, e.g. `fast(width=48)`; `foreign` for an adopted file."""
    style: str
    """Name of the style, usually the stem of the style picture."""
    size_multiple: int
    """Height and width must be multiples of this; the caller pads and crops."""
    input_name: str = "frame"
    output_name: str = "stylized"
    value_range: tuple[float, float] = (0.0, 1.0)
    """Code values of black and white, the same for input and output."""
    layout: Literal["NCHW", "NHWC"] = "NCHW"
    precision: Precision = "fp32"
    """Element type of input, output and weights."""
    fixed_size: tuple[int, int] | None = None
    """(width, height) in pixels when the graph accepts only one size, else None."""
    training_size_px: int | None = None
    """Side of the training crops."""
    style_size_px: int | None = None
    """Short side the style picture was scaled to: the scale at which brush strokes were learned."""
    content_size_px: int | None = None
    """Short side that training pictures were scaled to; None for many sizes."""
    style_names: tuple[str, ...] = ()
    """What the input `STYLE_WEIGHTS_INPUT` mixes, in its order; empty for a model of one style, without it."""
    takes_noise: bool = False
    """Whether there is an input `NOISE_INPUT`."""
    makes_textures: bool = False
    """Whether the input is noise in place of a frame."""
    float_layers: tuple[str, ...] | None = None
    """Convolutions that an int8 model computes in float, by the names of their weights; None without int8."""
    verification: dict[str, float] = field(default_factory=dict)
    """Figures measured on export, e.g. `max_abs_error` and `psnr_db` against PyTorch."""
    hashes: dict[str, str] = field(default_factory=dict)
    """SHA-256 of what the model was made from, e.g. `style_picture`, `weights`."""
    schema_version: int = SCHEMA_VERSION

    def __post_init__(self) -> None:
        if self.schema_version != SCHEMA_VERSION:
            raise ValueError(
                f"contract schema_version={self.schema_version}, this version reads {SCHEMA_VERSION}: "
                "export the model again or update stylize"
            )
        if self.size_multiple < 1:
            raise ValueError(f"size_multiple={self.size_multiple} must be at least 1")
        low, high = self.value_range
        if len(self.style_names) == 1:
            raise ValueError(f"style_names={self.style_names} must be several styles, or none for a model of one")
        if not low < high:
            raise ValueError(f"value_range={self.value_range} must be (black, white) with black < white")

    def __str__(self) -> str:
        size = "any size" if self.fixed_size is None else f"only {self.fixed_size[0]}x{self.fixed_size[1]}"
        styles = f"the styles {', '.join(self.style_names)}" if self.style_names else f"the style {self.style}"
        return f"{self.network} in {styles}, {'int8' if self.is_int8 else self.precision}, {size}"

    @property
    def is_int8(self) -> bool:
        """Whether the graph computes convolutions in int8 where it gains."""
        return self.float_layers is not None

    def to_json(self) -> str:
        """The contract as one line of JSON with sorted keys."""
        return json.dumps(dataclasses.asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> "ModelContract":
        """Read what `to_json` wrote.

        Raises:
            ValueError: not JSON, an unknown or missing field, or another schema version.
        """
        try:
            fields = json.loads(text)
        except json.JSONDecodeError as error:
            raise ValueError(f"the contract is not JSON: {error}") from error
        if not isinstance(fields, dict):
            raise ValueError(f"the contract is a JSON {type(fields).__name__}, expected an object")
        for name in ("value_range", "fixed_size", "style_names", "float_layers"):
            if isinstance(fields.get(name), list):
                fields[name] = tuple(fields[name])
        try:
            return cls(**fields)
        except TypeError as error:
            raise ValueError(f"the contract does not fit schema {SCHEMA_VERSION}: {error}") from error
