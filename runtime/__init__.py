"""Runs a style on videos, pictures and arrays; needs neither torch nor a GPU.

Files in one call, arrays by a model that stays loaded:

    from stylize.runtime import Stylizer, stylize_video

    stylize_video("starry-night", "in.mp4", "out.mp4")

    with Stylizer("starry-night") as stylizer:
        stylized_NHWC = stylizer.run(frames_NHWC)  # uint8 in, uint8 out
"""

from stylize.runtime.artifact import Artifact, BuiltinStyle, Quality, builtin_styles, open_artifact
from stylize.runtime.contract import ModelContract
from stylize.runtime.encode import EncodeOptions
from stylize.runtime.errors import StylizeError
from stylize.runtime.extra_inputs import StyleMix, noise_picture
from stylize.runtime.finish import FinishOptions
from stylize.runtime.render import stylize_video
from stylize.runtime.report import RunReport
from stylize.runtime.resume import ResumeOptions
from stylize.runtime.runner import Backend, ComputePrecision, Runner, open_runner
from stylize.runtime.selection import Selection
from stylize.runtime.stylizer import Stylizer

__all__ = [
    "Artifact",
    "Backend",
    "BuiltinStyle",
    "ComputePrecision",
    "EncodeOptions",
    "FinishOptions",
    "ModelContract",
    "Quality",
    "ResumeOptions",
    "RunReport",
    "Runner",
    "Selection",
    "StyleMix",
    "StylizeError",
    "Stylizer",
    "builtin_styles",
    "noise_picture",
    "open_artifact",
    "open_runner",
    "stylize_video",
]
