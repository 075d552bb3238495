"""Model files and built-in styles."""

from pathlib import Path

import numpy as np
import pytest

from stylize.runtime import Stylizer, builtin_styles, open_artifact
from stylize.runtime.errors import ArtifactError

STYLES = [style.name for style in builtin_styles()]


@pytest.mark.parametrize("name", STYLES)
def test_builtin_style_has_a_card_and_runs(name: str) -> None:
    style = next(style for style in builtin_styles() if style.name == name)
    assert style.description
    frames = np.full((1, 48, 64, 3), 128, np.uint8)
    with Stylizer(name) as stylizer:
        assert stylizer.artifact.origin == "builtin"
        assert stylizer.run(frames).shape == frames.shape


@pytest.mark.parametrize("name", STYLES)
def test_misspelt_style_is_corrected(name: str) -> None:
    with pytest.raises(ArtifactError, match=f"did you mean .*{name}"):
        open_artifact(name.replace("-", "_").upper()[:-1])


def test_a_picture_is_not_a_model_but_can_become_one(tmp_path: Path) -> None:
    picture = tmp_path / "monet.JPG"
    picture.write_bytes(b"\xff\xd8\xff")
    with pytest.raises(ArtifactError, match="a picture, not a model: `stylize-train --style "):
        open_artifact(picture)


def test_unknown_style_names_the_list() -> None:
    with pytest.raises(ArtifactError, match="--list-styles"):
        open_artifact("qqqq")
