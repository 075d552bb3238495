"""What a run did, for `--json` and for programs."""

import dataclasses
import json
from dataclasses import dataclass

__all__ = ["RunReport"]


@dataclass(frozen=True, kw_only=True)
class RunReport:
    """The facts of one finished run; what was really used, not what was asked for."""

    model: str
    """Style or file stem."""
    source: str
    target: str
    num_frames: int
    num_resumed_frames: int
    """Of these, what an earlier run had finished."""
    width: int
    """Pixels of the output."""
    height: int
    """Pixels of the output."""
    wall_seconds: float
    decode_seconds: float
    """Time the decode stage worked; the stages overlap."""
    network_seconds: float
    settle_seconds: float
    """Time spent on steadying frames; on a GPU that is part of `network_seconds`, and this is 0."""
    encode_seconds: float
    decoder: str
    backend: str
    encoder: str
    color: str
    """Matrix and range, for example `BT.709 limited`."""
    strength: float
    steady: float = 0.0
    """How strongly strokes were held in place, 0 for not."""
    scene_cut_seconds: tuple[float, ...] = ()
    """Where steadying began anew, from the first frame; cuts are looked for only while steadying."""
    num_dropped_frames: int = 0
    """Of a live source: frames that came while the network was busy, and were left out for newer ones."""
    latency_p50_ms: float | None = None
    """Of a live source: from the arrival of what completes a frame to its being encoded; of every second frame less."""
    latency_p95_ms: float | None = None
    """Of 95 of 100 frames less."""
    notes: tuple[str, ...] = ()
    """What was guessed, changed or left out, one sentence each."""
    problems: tuple[str, ...] = ()
    """Damage in the source; empty when all of it was rendered."""

    @property
    def frames_per_second(self) -> float:
        """Frames per second of this run, from start to end."""
        return (self.num_frames - self.num_resumed_frames) / self.wall_seconds if self.wall_seconds > 0 else 0.0

    def to_json(self) -> str:
        """The report as indented JSON, with the frame rate."""
        fields = dataclasses.asdict(self) | {"frames_per_second": round(self.frames_per_second, 3)}
        rounded = {key: round(value, 4) if isinstance(value, float) else value for key, value in fields.items()}
        return json.dumps(rounded, indent=2)
