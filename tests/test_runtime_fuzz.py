"""A few damaged files of each kind; `tests/fuzz.py` runs thousands."""

from pathlib import Path

import pytest
from fuzz import KINDS, fuzz


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_files_end_in_a_result_or_an_error(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    ends = fuzz(12, seed=7, kinds=(kind,), on_file=lambda _number: None)
    assert ends.total() == 12
    assert not list(tmp_path.iterdir())
