"""One rendering in a process of its own, which prints the most memory it held resident, in bytes.

`python -m stylize.benchmarks.memory_case MODEL BACKEND PRECISION CLIP OUTPUT`, started by `peak_resident_bytes`.
"""

import sys
from pathlib import Path

from stylize.benchmarks.measure import own_peak_resident_bytes
from stylize.runtime.runner import Backend, ComputePrecision
from stylize.runtime.stylizer import Stylizer, stylize_video


def main(arguments: list[str]) -> None:
    """Render once; `arguments` are model, backend, precision, clip and output."""
    model, backend, precision, clip, output = arguments
    with Stylizer(model, backend=Backend(backend), precision=ComputePrecision(precision)) as stylizer:
        stylize_video(stylizer, clip, Path(output))
    print(own_peak_resident_bytes())


if __name__ == "__main__":
    main(sys.argv[1:])
