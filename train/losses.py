"""The training losses as pure functions of features and pictures in [0, 1].

Each comes in three forms, with the sums and norms of the project that its weights are known from:

- `relative`: over the target's own energy, so that 1.0 means the same for every style and every VGG.
- `summed`: pytorch-reconet's. Gram matrices over C H W, all squared errors summed, pictures in [-1, 1]. What the
  two frames of a pair score is added up by `Objective`.
- `mean`: pytorch/examples fast_neural_style's. Gram matrices over C H W, all squared errors averaged.

All are means over the pictures of a batch: a larger batch does not weigh more.
Shapes: N batch, C channels, H height, W width; masks are (N, 1, H, W), 1 where visible.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from stylize.train.config import LossForm

__all__ = [
    "LUMINANCE_WEIGHTS",
    "content_loss",
    "diversity_loss",
    "feature_temporal_loss",
    "frame_difference_loss",
    "gram_matrix",
    "image_pyramid",
    "output_temporal_loss",
    "style_loss",
    "total_variation_loss",
]

LUMINANCE_WEIGHTS = (0.2126, 0.7152, 0.0722)  # ITU-R BT.709, item 3.2
# `relative` and `mean` count the flicker of pictures in units of this mean square: 5 % of the range.
_FLICKER_UNIT = 0.05**2
_UNCHANGED = 0.02  # change of a source pixel that counts little: what codecs leave, 5 of 255


def gram_matrix(features_NCHW: Tensor) -> Tensor:
    """Channel correlations (N, C, C), averaged over positions so that they do not depend on the size.

    Multiplied in the type of the features (bfloat16 products are summed in float32, and its range
    does not overflow), returned as float32 or wider. Source: Gatys et al., CVPR 2016, eq. 3, divided by the
    number of positions.
    """
    # As channels_last has them in memory, so that no gradient changes its layout on the way back; and picture by
    # picture, since on a CPU a batch of one takes six times as long in bfloat16.
    features_NPC = features_NCHW.permute(0, 2, 3, 1).flatten(1, 2)
    products = torch.stack([features_PC.t() @ features_PC for features_PC in features_NPC])
    return _at_least_float32(products) / features_NPC.shape[1]


def style_loss(
    features_NCHW: Tensor, style_grams_SCC: Tensor, mix_NS: Tensor | None = None, *, form: LossForm = "relative"
) -> Tensor:
    """Squared error of the Gram matrix; in the relative form 1.0 is what a black picture's features score.

    Args:
        features_NCHW: of the stylized pictures.
        style_grams_SCC: Gram matrix of each style.
        mix_NS: how much each style's error counts for each picture; None for one style alone.
        form: `relative` divides by the style's energy, `summed` by C^2 and `mean` by C^4.
    """
    error_NS = (gram_matrix(features_NCHW)[:, None] - style_grams_SCC).square().sum(dim=(2, 3))
    num_channels = style_grams_SCC.shape[-1]
    match form:
        case "relative":
            scaled_NS = error_NS / style_grams_SCC.square().sum(dim=(1, 2))
        case "summed":
            scaled_NS = error_NS / num_channels**2
        case "mean":
            scaled_NS = error_NS / num_channels**4
    return (scaled_NS if mix_NS is None else scaled_NS * mix_NS).sum(dim=1).mean()


def diversity_loss(pictures_NCHW: Tensor) -> Tensor:
    """How alike pictures of one batch are: minus the mean logarithm of each one's distance to its nearest other.

    The distance is the root mean square over pixels and channels, so pictures a tenth of the range apart
    score 2.3; alike ones are held at 1e-3.
    Source: Ulyanov et al., "Improved Texture Networks", arXiv 1701.02096, section 3.
    """
    flat_NP = pictures_NCHW.flatten(1)
    mean_square_NN = (flat_NP[:, None] - flat_NP[None]).square().mean(dim=2)
    itself = torch.eye(len(flat_NP), dtype=torch.bool, device=flat_NP.device)
    nearest_N = mean_square_NN.masked_fill(itself, torch.inf).min(dim=1).values
    return -0.5 * nearest_N.clamp_min(1e-6).log().mean()


def content_loss(
    features_NCHW: Tensor, content_NCHW: Tensor, *, form: LossForm = "relative", least_energy: float = 1e-8
) -> Tensor:
    """Mean squared error of the features; in the relative form over the energy of the content's own.

    Args:
        features_NCHW: of the stylized pictures.
        content_NCHW: of the pictures as they were.
        form: `relative`; `summed` and `mean` are both the plain mean.
        least_energy: what counts as the content's energy where it has less, in the relative form.
    """
    error_N = _at_least_float32(features_NCHW - content_NCHW).square().mean(dim=(1, 2, 3))
    if form != "relative":
        return error_N.mean()
    energy_N = _at_least_float32(content_NCHW).square().mean(dim=(1, 2, 3))
    return (error_N / energy_N.clamp_min(least_energy)).mean()


def total_variation_loss(pictures_NCHW: Tensor, *, form: LossForm = "relative") -> Tensor:
    """How much neighbouring pixels differ: mean square, or in the summed form the sum of absolute differences."""
    dx = pictures_NCHW[..., :, 1:] - pictures_NCHW[..., :, :-1]
    dy = pictures_NCHW[..., 1:, :] - pictures_NCHW[..., :-1, :]
    if form == "summed":
        return 2 * (dx.abs().sum() + dy.abs().sum()) / len(pictures_NCHW)  # 2: from [0, 1] to [-1, 1]
    return dx.square().mean() + dy.square().mean()


def output_temporal_loss(
    output_N3HW: Tensor,
    warped_output_N3HW: Tensor,
    input_N3HW: Tensor,
    warped_input_N3HW: Tensor,
    mask_N1HW: Tensor,
    *,
    form: LossForm = "relative",
) -> Tensor:
    """Change of the stylized frame beyond the change of light in the source, at visible pixels.

    Mean over pixels and RGB channels c of M ((O_t - W(O_{t-1}))_c - (I_t - W(I_{t-1}))_Y)^2, so 1.0 is a change of
    5 % of the range; in the summed form mean over pixels, sum over channels, of values in [-1, 1].
    Source: ReCoNet, arXiv 1807.01197, section 3.3.
    """
    luminance = input_N3HW.new_tensor(LUMINANCE_WEIGHTS)[None, :, None, None]
    input_change_N1HW = ((input_N3HW - warped_input_N3HW) * luminance).sum(dim=1, keepdim=True)
    difference = output_N3HW - warped_output_N3HW - input_change_N1HW
    change = (mask_N1HW * difference.square()).mean()
    return 2**2 * 3 * change if form == "summed" else change / _FLICKER_UNIT


def feature_temporal_loss(
    features_NCHW: Tensor, warped_features_NCHW: Tensor, mask_N1HW: Tensor, *, form: LossForm = "relative"
) -> Tensor:
    """Change of the encoder's features at visible positions, in the relative form over the features' own energy.

    Dividing by the energy keeps the network from escaping by shrinking its features.
    Source: ReCoNet, arXiv 1807.01197, section 3.3; the division is ours.
    """
    difference_N = (mask_N1HW * (features_NCHW - warped_features_NCHW).square()).mean(dim=(1, 2, 3))
    if form != "relative":
        return difference_N.mean()
    return (difference_N / features_NCHW.detach().square().mean(dim=(1, 2, 3)).clamp_min(1e-8)).mean()


def frame_difference_loss(
    output_N3HW: Tensor, previous_output_N3HW: Tensor, input_N3HW: Tensor, previous_input_N3HW: Tensor
) -> Tensor:
    """Change of the stylized frame where the source stays as it was; takes no flow.

    Mean over pixels and channels of w (O_t - O_{t-1})^2, w = exp(-|I_t - I_{t-1}|^2 / (2 * 0.02^2)) with the mean
    square over RGB, so 1.0 is a change of 5 % of the range everywhere in a still picture.
    """
    change_N1HW = (input_N3HW - previous_input_N3HW).square().mean(dim=1, keepdim=True)
    weight_N1HW = torch.exp(-change_N1HW / (2 * _UNCHANGED**2))
    return (weight_N1HW * (output_N3HW - previous_output_N3HW).square()).mean() / _FLICKER_UNIT


def image_pyramid(pictures_NCHW: Tensor, num_scales: int) -> list[Tensor]:
    """The pictures at scale 1, 1/2, 1/4, ...: each level the 2x2 means of the one before."""
    levels = [pictures_NCHW]
    for _ in range(num_scales - 1):
        levels.append(F.avg_pool2d(levels[-1], 2))
    return levels


def _at_least_float32(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))
