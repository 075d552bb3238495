"""Every test that docs/inputs.md names exists."""

import re
from pathlib import Path

TESTS = Path(__file__).parent


def test_named_tests_exist() -> None:
    text = (TESTS.parent / "docs" / "inputs.md").read_text(encoding="utf-8")
    rows = [line.rsplit("|", 2)[1] for line in text.splitlines() if line.startswith("|") and "---" not in line]
    named = [cell for cell in rows if "`" in cell]
    assert len(named) > 30
    every = "".join(path.read_text(encoding="utf-8") for path in TESTS.glob("test_runtime_*.py"))
    for cell in named:
        for name in re.findall(r"`([^`]+)`", cell):
            if name.startswith("python "):
                continue
            module, _, test = name.rpartition("::")
            if test.startswith("test_"):
                assert f"def {test}(" in every, name
            module = module or ("" if test.startswith("test_") else test)
            assert not module or (TESTS / f"test_runtime_{module}.py").exists(), name
