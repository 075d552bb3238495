"""Runs a style on videos, pictures and arrays; needs neither torch nor a GPU.

Files in one call, arrays by a model that stays loaded:

    from stylize.runtime import Stylizer, stylize_video

    stylize_video("starry-night", "in.mp4", "out.mp4")

    with Stylizer("starry-night") as stylizer:
        stylized_NHWC = stylizer.run(frames_NHWC)  # uint8 in, uint8 out

To read the code begin with `render`, which shows the way of every frame, and go on with what it calls:

    start     cli cli_options cli_types cli_console quality parts demo thumbnail self_test identity
    a run     render target route pipeline live finish report errors memory unattended
    in        source input_options decode demux choose_video picture_reader picture_decoder clock frame_maker describe
    a frame   frame selection color tone_map hdr_metadata picture_filter video_info
    network   stylizer network_pass extra_inputs steady steady_motion steady_constants
    model     artifact contract onnx_header plan
    backends  runner runner_openvino openvino_module runner_onnxruntime
    out       output encode video_encoder pixel_format container palette scheduling carry timecode check stream_output
              partial_file
    pictures  picture_output still
    resuming  resume run_facts segmented_output segment_file join folder_lock
    on a GPU  surface surface_source device_pass device device_color device_steady device_inputs device_bridge dlpack
    CUDA      cuda cuda_graph gpu hardware_video runner_tensorrt runner_onnxruntime_cuda
    engines   tensorrt_module engine_cache engine_from_onnx
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
