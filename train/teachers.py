"""Learning from trained networks instead of from pictures.

Costs no pass of the loss network, so a step is several times cheaper. Shapes: N pictures, S teachers.
"""

import torch
from torch import Tensor

from stylize.train.checkpoint import load_checkpoint, network_from_checkpoint
from stylize.train.config import TrainConfig
from stylize.train.loss_network import LossNetwork, usable_layers
from stylize.train.losses import content_loss
from stylize.train.style_target import loss_weights

__all__ = ["TeacherTarget"]

# Like the temporal loss: 1.0 is a difference of 5 % of the range.
_OUTPUT_UNIT = 0.05**2


class TeacherTarget:
    """Trained networks whose pictures the one in training shall paint.

    Knowledge distillation, Hinton et al., arXiv 1503.02531, on pictures instead of class scores.
    """

    def __init__(self, config: TrainConfig, device: torch.device, dtype: torch.dtype) -> None:
        """Load the teachers, and the loss network where features are compared too.

        Raises:
            ValueError: not a checkpoint, a teacher of several styles, or unreadable loss weights.
        """
        self._teachers = [network_from_checkpoint(load_checkpoint(path)) for path in config.teacher]
        for path, teacher in zip(config.teacher, self._teachers, strict=True):
            if teacher.num_styles > 1:
                raise ValueError(f"{path}: holds {teacher.num_styles} styles, a teacher must hold one")
            teacher.requires_grad_(False).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._loss_network: LossNetwork | None = None
        self._dtype = dtype
        if config.teacher_feature_weight:
            weights = loss_weights(config)
            network = LossNetwork(weights, usable_layers(weights, config.style_layers))
            self._loss_network = network.to(device, dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]

    def losses(self, stylized_N3HW: Tensor, source_N3HW: Tensor, mix_NS: Tensor) -> dict[str, Tensor]:
        """Difference from the teachers' pictures, `teacher`, and from their features, `teacher_features`.

        Args:
            stylized_N3HW: RGB in [0, 1].
            source_N3HW: what the teachers stylize.
            mix_NS: share of each teacher in each picture.
        """
        features = self._features(stylized_N3HW)
        terms = {"teacher": stylized_N3HW.new_zeros(())}
        if features:
            terms["teacher_features"] = stylized_N3HW.new_zeros(())
        num_pictures = len(stylized_N3HW)
        for teacher, share_N in zip(self._teachers, mix_NS.unbind(dim=1), strict=True):
            rows = share_N.nonzero()[:, 0]
            if not len(rows):
                continue
            with torch.no_grad():
                wanted = teacher(source_N3HW[rows]).float()
                wanted_features = self._features(wanted)
            share = share_N[rows].to(wanted.device)
            error = (stylized_N3HW[rows] - wanted).square().mean(dim=(1, 2, 3)) / _OUTPUT_UNIT
            terms["teacher"] = terms["teacher"] + (share * error).sum() / num_pictures
            for layer, target in wanted_features.items():
                # Pictures of one teacher have one share, or none: it is a blend or one style each.
                difference = content_loss(features[layer][rows], target) * share.sum() / num_pictures
                terms["teacher_features"] = terms["teacher_features"] + difference / len(features)
        return terms

    def _features(self, pictures_N3HW: Tensor) -> dict[str, Tensor]:
        if self._loss_network is None:
            return {}
        features: dict[str, Tensor] = self._loss_network(
            pictures_N3HW.to(self._dtype, memory_format=torch.channels_last)
        )
        return features
