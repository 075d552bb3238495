"""Results survive the way to JSON and back, and nothing else gets in."""

import dataclasses
import io
import json
import re
from pathlib import Path

import pytest
from jsonschema import ValidationError
from rich.console import Console, RenderableType

from stylize.benchmarks.environment import Environment, capture_environment
from stylize.benchmarks.jitter import JitterFigures
from stylize.benchmarks.measure import MachineRoof, Spread
from stylize.benchmarks.results import (
    ClipFacts,
    FidelityRow,
    Results,
    SpeedRow,
    SteadinessRow,
    read_results,
    write_results,
)
from stylize.benchmarks.tables import comparison_table, results_tables


def make_results(*, fps: float = 24.0) -> Results:
    steadiness = SteadinessRow(
        model="m",
        clip="c",
        flow="exact",
        e_stab=0.05,
        e_stab_luminance=0.04,
        e_stab_relative=None,
        e_stab_long=0.09,
        t_of_px=0.3,
        static_flicker=0.01,
        jitter=JitterFigures(noise=1.0, shift=0.5, light=0.9),
        content=0.8,
        style_error=None,
        style_change=0.4,
    )
    return Results(
        created_utc="2026-01-01T00:00:00+00:00",
        command="stylize-bench",
        environment=capture_environment(),
        roof=MachineRoof(gemm_gflop_per_second=190, copy_gb_per_second=20),
        clip=ClipFacts(name="c", width_px=64, height_px=48, num_frames=6),
        speed=[
            SpeedRow(
                model="m",
                backend="onnxruntime",
                precision="fp32",
                stage="network",
                width_px=64,
                height_px=48,
                fps=Spread(median=fps, low=fps - 1, high=fps + 1, num_samples=5),
                latency_p50_ms=40.0,
                peak_resident_bytes=10**8,
                gflop_per_frame=6.2,
                roof_share=0.8,
            )
        ],
        steadiness=[steadiness],
        fidelity=[
            FidelityRow(
                model="m",
                backend="onnxruntime",
                precision="fp16",
                psnr_db=50.0,
                ssim=0.999,
                max_error=0.02,
                temporal_difference=-0.001,
            )
        ],
    )


def shown(table: RenderableType) -> str:
    text = io.StringIO()
    Console(file=text, width=160).print(table)
    return text.getvalue()


def test_results_survive_the_way_to_json_and_back(tmp_path: Path) -> None:
    results = make_results()
    write_results(tmp_path / "results.json", results)
    assert dataclasses.asdict(read_results(tmp_path / "results.json")) == dataclasses.asdict(
        dataclasses.replace(
            results, speed=list(results.speed), steadiness=list(results.steadiness), fidelity=list(results.fidelity)
        )
    )
    assert [path.name for path in tmp_path.iterdir()] == ["results.json"]


def test_rows_are_matched_by_what_was_measured_not_by_how_fast() -> None:
    assert make_results(fps=10).speed[0].key == make_results(fps=99).speed[0].key


def test_rejects_results_without_environment(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    write_results(path, make_results())
    document = json.loads(path.read_text())
    del document["environment"]["cpu"]
    path.write_text(json.dumps(document))
    with pytest.raises(ValueError, match=r"results.json: not results of schema version 1: at \$.environment: 'cpu'"):
        read_results(path)


def test_rejects_a_file_that_is_not_json(tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text("fps: 30")
    with pytest.raises(ValueError, match="not JSON"):
        read_results(tmp_path / "results.json")


def test_memory_of_a_gpu_has_a_column_where_there_is_one() -> None:
    results = make_results()
    network = results.speed[0]
    on_cpu = dataclasses.replace(network, stage="pipeline")
    on_gpu = dataclasses.replace(on_cpu, peak_device_bytes=123_456_789)
    for pipeline, is_shown in ((on_cpu, False), (on_gpu, True)):
        text = shown(results_tables(dataclasses.replace(results, speed=[network, pipeline], steadiness=[])))
        assert ("GPU MB" in text) == is_shown
        assert (" 123 " in text) == is_shown


def test_only_what_was_measured_on_the_same_clip_is_compared() -> None:
    results = make_results()
    decode = dataclasses.replace(results.speed[0], model="-", stage="decode")
    old = dataclasses.replace(results, speed=[*results.speed, decode])
    assert all(text in shown(comparison_table(old, old)) for text in ("network m", "decode 64x48", "e_stab m"))
    other = dataclasses.replace(old, clip=dataclasses.replace(old.clip, name="d", num_frames=48))
    text = shown(comparison_table(other, old))
    assert "network m" in text
    assert "decode" not in text
    assert re.search(r"clip: frames +6 +48 ", text)


def test_steadiness_is_compared_only_at_one_size_and_length() -> None:
    results = make_results()
    row = dataclasses.replace(results.steadiness[0], width_px=64, height_px=48, num_frames=6)
    measured = dataclasses.replace(results, steadiness=[row])
    # The old row does not say on what it was measured; its clip does.
    assert "e_stab m" in shown(comparison_table(measured, results))
    for change in ({"width_px": 128}, {"num_frames": 5}):
        other = dataclasses.replace(results, steadiness=[dataclasses.replace(row, **change)])
        assert "e_stab m" not in shown(comparison_table(other, results))
        assert "e_stab m" not in shown(comparison_table(other, measured))


def test_one_round_has_no_spread() -> None:
    results = make_results()
    pipeline = dataclasses.replace(results.speed[0], stage="pipeline")
    once = dataclasses.replace(pipeline, fps=dataclasses.replace(pipeline.fps, num_samples=1))
    for row, rate in ((pipeline, "24.0 ±1.0"), (once, "24.0")):
        table = shown(results_tables(dataclasses.replace(results, speed=[results.speed[0], row])))
        assert re.search(r"m onnxruntime fp32 .* {2}(\S.*?) *$", table.splitlines()[2])[1] == rate


def test_refuses_to_write_figures_that_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(ValidationError):
        write_results(tmp_path / "results.json", make_results(fps=-5))
    assert not list(tmp_path.iterdir())


def test_every_field_of_the_environment_is_in_the_schema(tmp_path: Path) -> None:
    write_results(tmp_path / "results.json", make_results())
    stored = json.loads((tmp_path / "results.json").read_text())["environment"]
    assert set(stored) == {field.name for field in dataclasses.fields(Environment)}
    assert stored["num_cores"] >= 1
    assert "numpy" in stored["libraries"]
