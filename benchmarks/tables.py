"""Results as tables for a terminal."""

from collections.abc import Sequence

from rich.console import Group
from rich.table import Table

from stylize.benchmarks.results import EAGER, FidelityRow, Results, SpeedRow, Stage, SteadinessRow
from stylize.benchmarks.steadiness import NUM_STEADINESS_FRAMES

__all__ = ["by_stage", "comparison_table", "results_tables"]

_MISSING = "–"


def _number(value: float | None, digits: int) -> str:
    return _MISSING if value is None else f"{value:.{digits}f}"


def _megabytes(num_bytes: int | None) -> str:
    return _MISSING if num_bytes is None else f"{num_bytes / 1e6:.0f}"


def _rate(row: SpeedRow | None) -> str:
    """Median frames per second and half the width of the middle half; one round alone has no width."""
    if row is None:
        return _MISSING
    half_width = (row.fps.high - row.fps.low) / 2
    digits = 0 if row.fps.median >= 100 else 1 if row.fps.median >= 10 else 2
    rate = f"{row.fps.median:.{digits}f}"
    return rate if row.fps.num_samples == 1 else f"{rate} ±{half_width:.{digits}f}"


def _percentiles(row: SpeedRow | None) -> str:
    if row is None or row.latency_p50_ms is None:
        return _MISSING
    return " / ".join(_number(value, 1) for value in (row.latency_p50_ms, row.latency_p95_ms, row.latency_p99_ms))


def _ratio(row: SpeedRow | None, baseline: SpeedRow | None) -> str:
    if row is None or baseline is None:
        return _MISSING
    return f"{row.fps.median / baseline.fps.median:.2f}"


def _table(title: str, names: Sequence[str]) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(names[0])
    for name in names[1:]:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _name(row: SpeedRow | FidelityRow) -> str:
    return f"{row.model} [dim]{row.backend} {row.precision}[/dim]"


def by_stage(results: Results) -> dict[tuple[str, str, str], dict[Stage, SpeedRow]]:
    """Rows of each model, backend and precision; decoding is shared by those that have none of their own."""
    decode: dict[Stage, SpeedRow] = {row.stage: row for row in results.speed if row.model == "-"}
    grouped: dict[tuple[str, str, str], dict[Stage, SpeedRow]] = {}
    for row in results.speed:
        if row.model != "-":
            grouped.setdefault((row.model, row.backend, row.precision), dict(decode))[row.stage] = row
    return grouped


def rate_table(results: Results) -> Table:
    """Frames per second of each stage alone and of all together.

    With a baseline the last column is the whole pipeline's rate over the baseline's.
    """
    clip = results.clip
    eager = {row.model: row for row in results.speed if row.stage == "pipeline" and row.backend.startswith(EAGER)}
    names = ["MODEL", "DECODE", "NETWORK", "ENCODE", "WHOLE", *(["×EAGER"] if eager else [])]
    size = f"{clip.width_px}x{clip.height_px}"
    table = _table(f"Frames per second, {clip.name}, {size}, {clip.num_frames} frames", names)
    for stages in by_stage(results).values():
        rates = [_rate(stages.get(stage)) for stage in ("decode", "network", "encode")]
        whole = stages["pipeline"]
        ratio = [_ratio(whole, eager.get(whole.model))] if eager else []
        table.add_row(_name(whole), *rates, f"[bold]{_rate(whole)}[/bold]", *ratio)
    return table


def cost_table(results: Results) -> Table:
    """Milliseconds one frame takes, peak memory of the pipeline, work and share of the machine's roof.

    Memory of the GPU has a column where one was used.
    """
    has_gpu = any(row.peak_device_bytes is not None for row in results.speed)
    gpu_column = ("GPU MB",) if has_gpu else ()
    names = ("MODEL", "NETWORK p50/p95/p99 ms", "WHOLE p50/p95/p99 ms", "PEAK MB", *gpu_column, "GFLOP", "OF ROOF")
    table = _table("Latency, memory and work per frame", names)
    for stages in by_stage(results).values():
        network, whole = stages["network"], stages["pipeline"]
        table.add_row(
            _name(network),
            _percentiles(network),
            _percentiles(whole),
            _megabytes(whole.peak_resident_bytes),
            *([_megabytes(whole.peak_device_bytes)] if has_gpu else []),
            _number(network.gflop_per_frame, 1),
            _MISSING if network.roof_share is None else f"{network.roof_share:.0%}",
        )
    return table


def steadiness_table(rows: Sequence[SteadinessRow], clip: str) -> Table:
    """Warping errors of every model on one clip, the clip itself first."""
    shown = [row for row in rows if row.clip == clip]
    title = f"Steadiness, {clip}, {shown[0].flow} flow: lower is steadier"
    names = ("MODEL", "e_stab", "×SOURCE", "LUMINANCE", "t-9", "tOF px", "SHARP", "CONTENT", "STYLE", "CHANGE", "ms")
    table = _table(title, names)
    for row in shown:
        table.add_row(
            row.model,
            f"[bold]{row.e_stab:.4f}[/bold]",
            _number(row.e_stab_relative, 2),
            _number(row.e_stab_luminance, 4),
            _number(row.e_stab_long, 4),
            _number(row.t_of_px, 2),
            _number(row.sharpness, 4),
            _number(row.content, 2),
            _number(row.style_error, 3),
            _number(row.style_change, 3),
            _number(row.steady_ms, 1),
        )
    return table


def jitter_table(rows: Sequence[SteadinessRow], clip: str) -> Table:
    """What every model makes of changes that should not matter, on stills of one clip."""
    names = ("MODEL", "FLICKER", "NOISE", "SHIFT", "LIGHT")
    table = _table(f"Stills of {clip}: change out over in", names)
    for row in rows:
        if row.clip == clip and row.jitter is not None:
            figures = (row.jitter.noise, row.jitter.shift, row.jitter.light)
            table.add_row(row.model, _number(row.static_flicker, 4), *(_number(figure, 2) for figure in figures))
    return table


def fidelity_table(rows: Sequence[FidelityRow]) -> Table:
    """One line per backend and precision, against float32 ONNX Runtime."""
    table = _table("Fidelity to float32 ONNX Runtime", ("MODEL", "PSNR dB", "SSIM", "MAX ERROR", "Δ e_stab"))
    for row in rows:
        psnr = "equal" if row.psnr_db is None else f"{row.psnr_db:.1f}"
        table.add_row(
            _name(row),
            psnr,
            _number(row.ssim, 5),
            _number(row.max_error, 4),
            f"{row.temporal_difference:+.5f}",
        )
    return table


def _machine_lines(results: Results) -> str:
    environment, roof = results.environment, results.roof
    gpu = f", {environment.gpu} (driver {environment.gpu_driver})" if environment.gpu else ""
    return (
        f"{environment.cpu}, {environment.num_cores} cores{gpu}; "
        f"roof {roof.gemm_gflop_per_second:.0f} GFLOP/s float32, copy {roof.copy_gb_per_second:.1f} GB/s\n"
        f"stylize {environment.stylize} ({environment.commit or 'installed'}), Python {environment.python}, "
        + ", ".join(f"{name} {version}" for name, version in environment.libraries.items())
    )


def results_tables(results: Results) -> Group:
    """Everything a run found."""
    clips = list(dict.fromkeys(row.clip for row in results.steadiness))
    parts: list[Table | str] = [rate_table(results), "", cost_table(results), ""]
    for clip in clips:
        parts += [steadiness_table(results.steadiness, clip), ""]
    if any(row.jitter and row.clip == clips[0] for row in results.steadiness):
        parts += [jitter_table(results.steadiness, clips[0]), ""]
    if results.fidelity:
        parts += [fidelity_table(results.fidelity), ""]
    return Group(*parts, _machine_lines(results))


def _extent(row: SteadinessRow, results: Results) -> tuple[int | None, ...] | None:
    """Width, height and length of what a row was measured on, None where old results do not tell."""
    clip = results.clip
    if row.num_frames is not None:
        return row.width_px, row.height_px, row.num_frames
    if row.clip != clip.name:
        return None
    return clip.width_px, clip.height_px, min(clip.num_frames, NUM_STEADINESS_FRAMES)


def comparison_table(new: Results, old: Results) -> Table:
    """New over old for all that both runs measured; above 1 is faster, or less steady.

    Rows match by model, backend, precision, stage and size; other figures than the network's speed only where the
    clip is the same. The last lines tell how far the lengths of the clips and the machines themselves differ.
    """
    table = _table(
        f"Now against {old.created_utc} ({old.environment.commit or 'installed'})", ("", "BEFORE", "NOW", "RATIO")
    )

    def add(name: str, before: float, now: float, digits: int) -> None:
        ratio = f"{now / before:.3f}" if before > 0 else _MISSING
        table.add_row(name, f"{before:.{digits}f}", f"{now:.{digits}f}", ratio)

    earlier_speed = {row.key: row for row in old.speed}
    for row in new.speed:
        earlier = earlier_speed.get(row.key)
        if earlier is not None and (row.stage == "network" or new.clip.name == old.clip.name):
            model, backend, precision, stage, size = row.key
            name = f"{stage} {size}" if model == "-" else f"{stage} {model} {backend} {precision} {size}"
            add(f"{name}, fps", earlier.fps.median, row.fps.median, 2)
    earlier_steadiness = {(row.model, row.clip, row.flow): row for row in old.steadiness}
    for steadiness in new.steadiness:
        before = earlier_steadiness.get((steadiness.model, steadiness.clip, steadiness.flow))
        is_alike = old.formula_version == new.formula_version
        if before is not None and is_alike and _extent(before, old) in (None, _extent(steadiness, new)):
            add(f"e_stab {steadiness.model}, {steadiness.clip}", before.e_stab, steadiness.e_stab, 4)
    add("clip: frames", old.clip.num_frames, new.clip.num_frames, 0)
    add("machine: GFLOP/s", old.roof.gemm_gflop_per_second, new.roof.gemm_gflop_per_second, 1)
    add("machine: copy GB/s", old.roof.copy_gb_per_second, new.roof.copy_gb_per_second, 1)
    return table
