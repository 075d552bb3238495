"""Whether the memory of this machine can do for frames of a size, as far as that is known before they come."""

from pathlib import Path
from typing import Final

from stylize.runtime.errors import OptionError

__all__ = ["check_memory"]

# Never less: a frame of 16-bit RGB in each of three stages, and the network's input, output and result as 32-bit RGB.
# What a network needs inside comes on top: of 7680x4320, 1.8 GB are counted, `fastest` peaks at 5.5.
_BYTES_PER_PIXEL: Final = 3 * 6 + 3 * 12
_MEMINFO: Final = Path("/proc/meminfo")


def check_memory(width: int, height: int, *, meminfo: Path = _MEMINFO) -> None:
    """Refuse frames of `width` x `height` pixels that cannot fit; says nothing where the system does not tell.

    Args:
        width: pixels.
        height: pixels.
        meminfo: the system's figures, in Linux's form.

    Raises:
        OptionError: there is less memory than their buffers alone take.
    """
    lines = meminfo.read_text().splitlines() if meminfo.is_file() else []
    available = next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), None)
    needed = width * height * _BYTES_PER_PIXEL
    if available is not None and needed > available:
        raise OptionError(
            f"frames of {width}x{height} need more than {needed / 1e9:.1f} GB, this machine has "
            f"{available / 1e9:.1f} GB left: make them smaller, such as --scale {max(2, width // 4 * 2)}x-1"
        )
