"""What the loss terms say about a training, in plain words.

The thresholds are for relative errors and come from two finished trainings (starry-night, the-scream), judged
on photos: at full strength style errors were 0.06 and 0.07, content errors 0.52 and 0.50; blended half and
half with the photo, 0.29 and 0.25, and 0.21 and 0.15. The photo itself scores a style error of 1.2, a grey
picture a content error of 0.97, another photo 1.37.
"""

from stylize.train.config import TrainConfig

__all__ = ["FAINT_STYLE", "LOST_CONTENT", "diagnosis", "relative_errors"]

FAINT_STYLE = 0.25
LOST_CONTENT = 0.85
_RESTLESS = 1.0  # in units of a flicker of 5 % of the range; finished trainings have about 0.5


def relative_errors(config: TrainConfig, losses: dict[str, float]) -> dict[str, float]:
    """Terms without their weights; only those that are relative and have a weight."""
    if config.loss_form != "relative":
        return {}
    weights = {
        "content": config.content_weight,
        "style": config.style_weight,
        "temporal": config.temporal_weight,
    }
    return {name: losses[name] / weight for name, weight in weights.items() if weight and name in losses}


def diagnosis(config: TrainConfig, losses: dict[str, float]) -> list[str]:
    """Which term dominates, and which knob to turn where something is lost.

    Args:
        config: of the training.
        losses: weighted terms, means over some steps; `total` is left out.
    """
    # The diversity of textures may be negative, and then is no part of a whole.
    terms = {name: value for name, value in losses.items() if name != "total" and value > 0}
    lines = []
    if terms:
        whole = sum(terms.values())
        shares = sorted(((value / whole, name) for name, value in terms.items()), reverse=True)
        others = ", ".join(f"{name} {share:.0%}" for share, name in shares[1:3])
        lines.append(f"{shares[0][1]} makes up {shares[0][0]:.0%} of the loss" + (f" ({others})" if others else ""))
    errors = relative_errors(config, losses)
    is_faint = errors.get("style", 0) > FAINT_STYLE
    is_lost = errors.get("content", 0) > LOST_CONTENT
    if is_faint and is_lost:
        both = f"style (error {errors['style']:.2f}) nor content ({errors['content']:.2f})"
        lines.append(f"neither {both} is learned yet: train longer")
    elif is_faint:
        lines.append(
            f"the style is still faint (error {errors['style']:.2f}; {FAINT_STYLE} is half strength): train longer, "
            f"or raise --style-weight ({config.style_weight:g})"
        )
    elif is_lost:
        lines.append(
            f"the content is being lost (error {errors['content']:.2f}; a grey picture has 0.97): "
            f"raise --content-weight ({config.content_weight:g}) or lower --style-weight ({config.style_weight:g})"
        )
    if not is_faint and errors.get("temporal", 0) > _RESTLESS:
        lines.append(
            f"it flickers (error {errors['temporal']:.1f}; 1.0 is 5 % of the range): train longer, "
            f"or raise --temporal-weight ({config.temporal_weight:g})"
        )
    return lines
