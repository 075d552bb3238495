"""Everything a training run can be told, in one frozen dataclass."""

import dataclasses
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

__all__ = ["SMALLEST_SCALE_PX", "LossForm", "Preset", "TrainConfig", "config_to_dict"]

Preset = Literal["balanced", "reconet-seed", "johnson", "texture"]
LossForm = Literal["relative", "summed", "mean"]

# relu4_1 and deeper are left out: the same features on a half and a quarter size picture see larger
# strokes for less work, and published weights cut after conv3_4 suffice.
_STYLE_LAYERS = ("relu1_1", "relu2_1", "relu3_1", "relu3_4")
SMALLEST_SCALE_PX = 32
"""Side that a crop must have left at the smallest scale."""


def _option(default: Any, text: str) -> Any:  # noqa: ANN401 - dataclasses.field has no better type
    return field(default=default, metadata={"help": text})


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """One training run; each field is also a flag of `stylize-train`.

    Raises:
        ValueError: a value is out of its range, or steps and minutes are both given.
    """

    style: tuple[Path, ...] = _option(
        (), "Style picture, or stained-glass, drawn on the spot; several are mixed, or kept apart by --conditional."
    )
    style_weights: tuple[float, ...] = _option((), "Share of each --style or --teacher in the mix, such as 0.3,0.7.")
    conditional: bool = _option(False, "One network for all styles, told apart and mixed at run time.")
    teacher: tuple[Path, ...] = _option((), "Checkpoint to learn from instead of a style picture; repeatable.")
    mode: Literal["stylize", "texture"] = _option("stylize", "texture: paint from noise alone (--network texture).")
    preset: Preset = _option(  # noqa: RUF009 - a wrapper of dataclasses.field
        "balanced", "Whose losses, layers and weights; a flag given beside it wins."
    )
    data: tuple[str, ...] = _option(
        (),
        "Folder of pictures, of video clips, or a data set with motion (Monkaa, FlyingThings3D, MPI-Sintel), "
        "recognised by looking at it; FOLDER:0.3 for a weight; repeatable. Default: scenes drawn on the spot.",
    )
    flow_cache: Path | None = _option(  # noqa: RUF009 - a wrapper of dataclasses.field
        None, "Where the motion of clips is kept once it is measured. Default: the user's cache folder."
    )
    network: Literal["fast", "fastest", "reconet", "johnson", "texture"] = _option("fast", "Architecture.")
    width: Literal[32, 48, 64, 96] = _option(48, "fast: channels of the trunk.")
    norm: Literal["instance", "frn"] = _option("instance", "reconet: normalisation; frn avoids bubbles.")
    activation_after_add: bool = _option(False, "reconet: ReLU after each residual sum.")
    upsampling: Literal["resize", "deconv"] = _option("resize", "johnson: deconv as published; may draw grids.")
    padding: Literal["auto", "reflect", "circular"] = _option(
        "auto", "texture: circular makes tiles; auto is circular for textures."
    )
    loss_weights: Path | None = _option(  # noqa: RUF009 - a wrapper of dataclasses.field
        None, "VGG weights (.safetensors or .pth). Default: torch's cache, else download."
    )
    start_from: Path | None = _option(  # noqa: RUF009 - a wrapper of dataclasses.field
        None, "Checkpoint whose weights to begin with: a related style learns faster."
    )
    steps: int | None = _option(None, "Training steps. Default: 10000, unless --minutes is given.")
    minutes: float | None = _option(None, "Train for this long instead of a number of steps.")
    batch_size: int = _option(1, "Frame pairs per step, over all processes.")
    accumulate: int = _option(1, "Passes a step is split into, to train with less memory.")
    crop_px: int = _option(192, "Side of the training crops.")
    style_size_px: int = _option(512, "Short side the style picture is scaled to; smaller gives finer strokes.")
    content_size_px: int | None = _option(
        None, "Short side that pictures are scaled to before the crop. Default: many sizes, as video has them."
    )
    num_scales: int = _option(3, "Style is compared at full, half, quarter ... size: this many.")
    style_layers: tuple[str, ...] = _option(_STYLE_LAYERS, "VGG layer for style; repeatable.")
    content_layer: str = _option("relu3_4", "VGG layer for content.")
    loss_network: Literal["vgg19", "vgg16"] = _option("vgg19", "Which VGG is downloaded without --loss-weights.")
    loss_form: LossForm = _option(  # noqa: RUF009 - a wrapper of dataclasses.field
        "relative", "Errors over the target's energy, as pytorch-reconet sums them, or as fast_neural_style means them."
    )
    both_frames: bool = _option(False, "Style and content of both frames in each step, not of each in turn.")
    content_weight: float = _option(1.0, "Weight of the content error.")
    style_weight: float = _option(10.0, "Weight of the Gram error.")
    teacher_weight: float = _option(10.0, "Weight of the difference from the teacher's picture.")
    teacher_feature_weight: float = _option(0.0, "Weight of the difference from the teacher's VGG features.")
    temporal_weight: float = _option(1.0, "Weight of the output's flicker; 0 trains a picture-only style.")
    feature_temporal_weight: float = _option(0.1, "Weight of the encoder features' flicker.")
    frame_difference_weight: float = _option(0.0, "Weight of change where the source does not change; needs no flow.")
    variation_weight: float = _option(5.0, "Weight of total variation: smoother flats.")
    diversity_weight: float = _option(0.3, "texture: weight of pictures of different noise being alike.")
    learning_rate: float = _option(2e-3, "Adam's highest learning rate.")
    slower_wide_layers: bool = _option(
        True, "Divide the learning rate of layers that sum over more than 600 inputs: no blobs from wide networks."
    )
    decay: bool = _option(True, "Warm up, then lower the learning rate by half a cosine; else it stays.")
    gradient_clip: float = _option(10.0, "Largest norm of the gradient; 0 for any.")
    seed: int = _option(0, "Seed of the initial weights and of the data.")
    precision: Literal["auto", "fp32", "bf16"] = _option(
        "auto", "Arithmetic of the heavy parts; auto is bf16 where it is fast."
    )
    preview_every: int = _option(500, "Steps between preview pictures; 0 for none.")
    checkpoint_every: int = _option(500, "Steps between checkpoints.")
    tensorboard: Path | None = _option(  # noqa: RUF009 - a wrapper of dataclasses.field
        None, "Folder for TensorBoard: curves, and the previews as pictures."
    )

    def __post_init__(self) -> None:
        for name, low, high in _RANGES:
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                raise ValueError(f"{name}={value} must be in [{low}, {high}]")
        if self.steps is not None and self.minutes is not None:
            raise ValueError(f"steps={self.steps} and minutes={self.minutes} exclude each other: give one")
        if self.crop_px % 2**self.num_scales:
            raise ValueError(
                f"crop_px={self.crop_px} must be a multiple of {2**self.num_scales} for {self.num_scales} scales"
            )
        smallest = self.crop_px // 2 ** (self.num_scales - 1)
        if smallest < SMALLEST_SCALE_PX:
            raise ValueError(
                f"crop_px={self.crop_px} leaves {smallest} px at scale {self.num_scales}, "
                f"at least {SMALLEST_SCALE_PX} are needed"
            )
        if self.content_size_px is not None and self.content_size_px < self.crop_px:
            raise ValueError(f"content_size_px={self.content_size_px} must be at least crop_px={self.crop_px}")
        self._check_styles()
        self._check_texture()

    def _check_styles(self) -> None:
        num_styles = len(self.style) + len(self.teacher)
        if not (self.style or self.teacher):
            raise ValueError("nothing to learn: give --style picture.jpg, or --teacher network.pth")
        if self.style and self.teacher:
            raise ValueError("give one --style or several, or one --teacher or several, not both")
        if self.style_weights and (len(self.style_weights) != num_styles or self.conditional):
            why = "which are mixed at run time" if self.conditional else "one for each"
            raise ValueError(f"style_weights={self.style_weights} for {num_styles} styles, {why}")
        if any(not 0 <= weight < math.inf for weight in self.style_weights) or sum(self.style_weights or (1,)) == 0:
            raise ValueError(f"style_weights={self.style_weights} must be positive or zero, and not all zero")
        if self.conditional and not 2 <= num_styles <= 32:
            raise ValueError(f"conditional={self.conditional} takes 2 to 32 styles, got {num_styles}")

    def _check_texture(self) -> None:
        if self.mode == "texture" and (self.network != "texture" or self.teacher):
            raise ValueError(f"mode='texture' takes network='texture' and --style, got network={self.network!r}")

    @property
    def shares(self) -> tuple[float, ...]:
        """Share of each style or teacher in the mix; they add up to 1."""
        weights = self.style_weights or (1.0,) * (len(self.style) + len(self.teacher))
        return tuple(weight / sum(weights) for weight in weights)

    @property
    def network_options(self) -> dict[str, str | int | bool]:
        """The options `build_network` takes for this network."""
        options: dict[str, str | int | bool] = {}
        match self.network:
            case "fast":
                options = {"width": self.width}
            case "johnson":
                options = {"upsampling": self.upsampling}
            case "reconet":
                options = {"norm": self.norm, "activation_after_add": self.activation_after_add}
            case "texture":
                padding = "circular" if self.mode == "texture" else "reflect"
                options = {"mode": self.mode, "padding": padding if self.padding == "auto" else self.padding}
        if self.conditional:
            options["num_styles"] = len(self.style) + len(self.teacher)
        return options

    @property
    def num_steps(self) -> int | None:
        """Steps to train, None when time decides."""
        return None if self.minutes is not None else (self.steps or _DEFAULT_STEPS)


_DEFAULT_STEPS = 10_000  # about 70 minutes on two cores; strokes settle after about 5,000

_RANGES: tuple[tuple[str, float, float], ...] = (
    ("steps", 1, 10**8),
    ("minutes", 0.01, 10**6),
    ("batch_size", 1, 1024),
    ("accumulate", 1, 1024),
    ("content_size_px", 64, 16384),
    ("crop_px", 64, 4096),
    ("style_size_px", 64, 4096),
    ("num_scales", 1, 6),
    ("content_weight", 0, 1e15),
    ("style_weight", 0, 1e15),
    ("teacher_weight", 0, 1e9),
    ("teacher_feature_weight", 0, 1e9),
    ("temporal_weight", 0, 1e9),
    ("feature_temporal_weight", 0, 1e9),
    ("frame_difference_weight", 0, 1e9),
    ("variation_weight", 0, 1e9),
    ("gradient_clip", 0, 1e9),
    ("diversity_weight", 0, 1e9),
    ("learning_rate", 1e-8, 1),
    ("seed", 0, 2**32 - 1),
    ("preview_every", 0, 10**8),
    ("checkpoint_every", 1, 10**8),
)


def config_to_dict(config: TrainConfig) -> dict[str, Any]:
    """Plain values only, as a checkpoint holds them."""
    plain = dataclasses.asdict(config)
    for name, value in plain.items():
        if isinstance(value, Path):
            plain[name] = str(value)
        elif isinstance(value, tuple):
            plain[name] = [str(item) if isinstance(item, Path) else item for item in value]
    return plain
