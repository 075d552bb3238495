"""What a model may take beside the frame: the mix of its styles, and noise."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from stylize.runtime.contract import NOISE_INPUT, STYLE_WEIGHTS_INPUT, ModelContract
from stylize.runtime.errors import OptionError
from stylize.runtime.selection import seconds_from_text

__all__ = ["NO_EXTRAS", "ExtraInputs", "Extras", "StyleMix", "noise_picture", "write_noise"]

Extras: TypeAlias = Mapping[str, NDArray[np.float32] | NDArray[np.float16]]
"""Arrays in host memory by the name of their input; on the CPU they must live until the pass is over."""

NO_EXTRAS: Final[Extras] = {}


@dataclass(frozen=True)
class StyleMix:
    """Shares of a model's styles, each a number or a style's name, at one or several moments.

    Between two moments the shares change linearly; before the first and after the last they hold.
    """

    keyframes: tuple[tuple[float, str | tuple[float, ...]], ...]
    """(seconds from the first frame, shares or name), in order of time."""

    def __post_init__(self) -> None:
        times = [seconds for seconds, _ in self.keyframes]
        if not times or any(later <= earlier for earlier, later in pairwise(times)):
            raise OptionError(f"the moments of a style mix must follow each other in time, got {times}")
        for _, shares in self.keyframes:
            if isinstance(shares, str):
                continue
            if any(not 0 <= share < float("inf") for share in shares) or sum(shares) <= 0:
                raise OptionError(f"style mix {_text(shares)}: shares are 0 or more, and not all 0")

    @classmethod
    def of(cls, mix: "str | Sequence[float] | StyleMix") -> "StyleMix":
        """Read what a user gives: a mix, shares, or text as `parse` takes it."""
        if isinstance(mix, StyleMix):
            return mix
        return cls.parse(mix) if isinstance(mix, str) else cls(((0.0, tuple(mix)),))

    @classmethod
    def parse(cls, text: str) -> "StyleMix":
        """Read `0.3,0.7`, `great-wave`, or moments such as `0:1,0;5:0,1` and `0:great-wave;1:02:0,1`.

        Raises:
            OptionError: it is of another form.
        """
        parts = text.split(";")
        keyframes = []
        for part in parts:
            time, colon, shares = part.strip().rpartition(":")
            if len(parts) > 1 and not colon:
                raise OptionError(f"style mix {text!r}: {part!r} lacks its moment, as in 0:1,0;5:0,1")
            try:
                keyframes.append((float(seconds_from_text(time)) if colon else 0.0, _shares(shares)))
            except ValueError as error:
                raise OptionError(f"style mix {text!r}: {error}") from error
        return cls(tuple(keyframes))

    def shares_at(self, seconds: float, style_names: Sequence[str]) -> tuple[float, ...]:
        """Share of each style at this moment, adding up to 1.

        Raises:
            OptionError: shares or names that do not fit the model's styles.
        """
        moments = np.array([time for time, _ in self.keyframes])
        shares = np.array([_resolved(given, style_names) for _, given in self.keyframes])
        mixed = [float(np.interp(seconds, moments, column)) for column in (shares / shares.sum(1, keepdims=True)).T]
        return tuple(mixed)


class ExtraInputs:
    """Makes the extra inputs of one model, frame by frame."""

    def __init__(
        self, contract: ModelContract, *, style_mix: str | Sequence[float] | StyleMix | None = None, seed: int = 0
    ) -> None:
        """Check that the model takes what is asked for.

        Args:
            contract: of the model.
            style_mix: shares of its styles; None for the first alone.
            seed: of the noise, where the model takes any.

        Raises:
            OptionError: a mix for a model of one style, or one that does not fit its styles.
        """
        self._contract = contract
        self._seed = seed
        self._noise: NDArray[np.float32] | NDArray[np.float16] = np.empty((1, 3, 0, 0), np.float32)
        self._mix: StyleMix | None = None
        if contract.style_names:
            self._mix = StyleMix.of(contract.style_names[0] if style_mix is None else style_mix)
            self._mix.shares_at(0.0, contract.style_names)
        elif style_mix is not None:
            raise OptionError(f"--style-mix: this model holds one style, {contract.style}; drop the option")

    def at(self, seconds: float, *, height: int, width: int) -> Extras:
        """The extra inputs of a frame shown at this time, which the network sees at this size in pixels."""
        extras: dict[str, NDArray[np.float32] | NDArray[np.float16]] = {}
        if self._mix is not None:
            shares = self._mix.shares_at(seconds, self._contract.style_names)
            extras[STYLE_WEIGHTS_INPUT] = np.array(shares, np.float32)
        if self._contract.takes_noise:
            if self._noise.shape[2:] != (height, width):
                # One noise for the whole run: new noise in every frame would flicker.
                noise = np.random.default_rng(self._seed).random((1, 3, height, width), np.float32)
                self._noise = noise.astype(np.float16) if self._contract.precision == "fp16" else noise
            extras[NOISE_INPUT] = self._noise
        return extras


def noise_picture(*, width: int, height: int, seed: int) -> NDArray[np.uint8]:
    """What a texture model paints from: (height, width, 3) uint8, uniform and independent."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def write_noise(path: Path, *, width: int, height: int, seed: int) -> None:
    """`noise_picture` as a PPM file, exact."""
    path.write_bytes(
        b"P6 %d %d 255\n" % (width, height) + noise_picture(width=width, height=height, seed=seed).tobytes()
    )


def _shares(text: str) -> str | tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        if "," in text or not text.strip():
            raise ValueError(f"{text!r} is neither shares such as 0.3,0.7 nor the name of a style") from None
        return text.strip()


def _resolved(given: str | tuple[float, ...], style_names: Sequence[str]) -> tuple[float, ...]:
    styles = ", ".join(style_names)
    if isinstance(given, str):
        if given not in style_names:
            raise OptionError(f"style mix: there is no style {given!r} in this model, but {styles}")
        return tuple(float(name == given) for name in style_names)
    if len(given) != len(style_names):
        raise OptionError(
            f"style mix {_text(given)}: {len(given)} shares for the model's {len(style_names)} styles {styles}"
        )
    return given


def _text(shares: Sequence[float]) -> str:
    return ",".join(f"{share:g}" for share in shares)
