"""A short training of a style in bfloat16 and in float32, then its export and a render; writes JSON.

    python tests/gpu/measure_training.py OUT.json [STEPS [TRAINING OPTIONS]]

The loss network's weights are those of LOSS_WEIGHTS, else random: then the speed is right and the look is not.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

STYLE = Path(__file__).parents[2] / "docs" / "gallery.jpg"
# Channels of VGG-19 up to conv3_4 by torchvision's indices: in, out.
VGG = {
    0: (3, 64),
    2: (64, 64),
    5: (64, 128),
    7: (128, 128),
    10: (128, 256),
    12: (256, 256),
    14: (256, 256),
    16: (256, 256),
}
LIMIT_SECONDS = 200


def main(target: Path, steps: str, options: list[str]) -> None:
    facts: dict[str, Any] = {"torch": torch.__version__, "has_cuda": torch.cuda.is_available(), "steps": int(steps)}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        given = os.environ.get("LOSS_WEIGHTS")
        weights = Path(given) if given else folder / "vgg.pth"
        facts["loss_weights"] = "given" if given else "random"
        if not given:
            torch.save(random_weights(), weights)
        for precision in ("bf16", "fp32"):
            facts[precision] = trained(folder, weights, precision, steps, options)
            target.write_text(json.dumps(facts, indent=2) + "\n")
        model, onnx, video = (folder / f"bf16.{suffix}" for suffix in ("pth", "onnx", "mp4"))
        facts["export"] = run("stylize.export.cli", str(model), "-o", str(onnx)).strip().splitlines()[-1]
        facts["render"] = run("stylize.runtime.cli", str(onnx), "demo", str(video)).strip()[-300:]
        target.write_text(json.dumps(facts, indent=2) + "\n")


def trained(folder: Path, weights: Path, precision: str, steps: str, options: list[str]) -> dict[str, Any]:
    """Time of one training, from start to end and by its own log."""
    started = time.perf_counter()
    output = run(
        "stylize.train.cli",
        *("--style", str(STYLE), "--loss-weights", str(weights), "--precision", precision, "--steps", steps),
        *("--seed", "0", "-o", str(folder / f"{precision}.pth")),
        *options,
    )
    seconds = time.perf_counter() - started
    return {"seconds": seconds, "steps_per_second": int(steps) / seconds, "last_lines": output.splitlines()[-4:]}


def random_weights() -> dict[str, torch.Tensor]:
    """Of the size of VGG-19's, scaled to keep the size of activations."""
    generator = torch.Generator().manual_seed(0)
    weights: dict[str, torch.Tensor] = {}
    for index, (num_in, num_out) in VGG.items():
        kernel = torch.randn(num_out, num_in, 3, 3, generator=generator)
        weights[f"features.{index}.weight"] = kernel * (2 / (9 * num_in)) ** 0.5
        weights[f"features.{index}.bias"] = torch.zeros(num_out)
    return weights


def run(module: str, *arguments: str) -> str:
    """What a command prints, both streams."""
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=LIMIT_SECONDS,
        check=False,
    )
    if done.returncode:
        sys.exit(f"{module} failed: {done.stdout[-2000:]}")
    return done.stdout


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else "300", sys.argv[3:])
