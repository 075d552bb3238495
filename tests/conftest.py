"""Settings every test shares."""

import os

import pytest

# Tests compute little, and thread pools that spin on two cores cost more than they give. Set before
# the libraries are loaded; child processes inherit it.
os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip `needs_gpu` tests without a GPU, unless FAIL_WITHOUT_GPU says that there must be one."""
    if os.environ.get("FAIL_WITHOUT_GPU") == "1" or os.path.exists("/dev/nvidiactl"):  # noqa: PTH110
        return
    skip = pytest.mark.skip(reason="no NVIDIA GPU on this machine")
    for item in items:
        if item.get_closest_marker("needs_gpu"):
            item.add_marker(skip)
