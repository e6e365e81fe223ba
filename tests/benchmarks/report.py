"""What is shown: a table, JSON with every number, and a picture."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import peers
from peers import OURS
from rounds import Comparison, Growth, Measure

_COLOURS = {True: "#2a7f62", False: "#b5523b"}


def machine() -> dict[str, Any]:
    """Describe what it was measured on, and with."""
    return {
        "platform": platform.platform(),
        "cpu": _cpu(),
        "cpus": os.cpu_count(),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "versions": peers.versions(),
        "missing": peers.missing(),
    }


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def text(found: Sequence[Measure], growths: Sequence[Growth], about: dict[str, Any]) -> str:
    """Return everything as text: for a terminal, and for the manual, which includes it."""
    parts = [_machine_text(about), *_comparison_parts(found), *map(_growth_text, growths)]
    return "\n\n".join(parts) + "\n"


def _machine_text(about: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    lines = [
        f"{about['platform']}, {about['cpus']} x {about['cpu']}, {about['python']}.",
        f"With {versions}.",
    ]
    if about["missing"]:
        lines.append(f"Not installed, and left out: {', '.join(about['missing'])}.")
    return "\n".join(lines)


def _comparison_parts(found: Sequence[Measure]) -> list[str]:
    header = ["what", "ours", "figure", "baseline", "figure", "ratio", "min..max"]
    rows = [_row(measure, pair) for measure in found for pair in measure.comparisons()]
    notes = [f"{measure.title}: {note}." for measure in found for note in measure.notes]
    legend = "Ratio: ours divided by the baseline.  (-) marks where less is better."
    parts = [_columns([header, *rows], "ll>l>>l"), "\n".join([legend, *notes])]
    return [*parts, _peers_text(found)]


def _row(measure: Measure, pair: Comparison) -> list[str]:
    spread = f"{_figure(min(pair.ratios))}..{_figure(max(pair.ratios))}"
    what = f"{measure.title}, {measure.unit}" + " (-)" * measure.less_is_better
    ours, baseline = _figure(pair.value), _figure(pair.baseline_value)
    ratio = _figure(pair.ratio)
    return [what, pair.ours, ours, pair.baseline, baseline, ratio, spread]


def _peers_text(found: Sequence[Measure]) -> str:
    """List everybody's median, not only the best peer's."""
    lines = ["The median of each:", ""]
    for measure in found:
        figures = (f"{n} {_figure(median(v))}" for n, v in measure.samples.items() if v)
        lines.append(f"- {measure.title}, {measure.unit}: {', '.join(figures)}")
    return "\n".join(lines)


def _growth_text(growth: Growth) -> str:
    names = list(dict.fromkeys(name for point in growth.points.values() for name in point))
    rows = [[growth.parameter, *(f"{n}, {u}" for n in names for u in ("messages/s", "MB/s"))]]
    for value, samples in growth.points.items():
        row = [f"{value:,}"]
        for name in names:
            rate = median(samples[name])
            row += [_figure(rate), _figure(rate * growth.sizes[value] / 1e6)]
        rows.append(row)
    return f"{growth.title}\n\n" + _columns(rows, ">" * len(rows[0]))


def _figure(value: float) -> str:
    """Write a number with three digits that say something, and no fewer than it has."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.{1 if value >= 10 else 2 if value >= 0.1 else 4}f}"


def _columns(rows: Iterable[Sequence[str]], aligned: str) -> str:
    """Lay out a table, as reStructuredText has it; the first row is its head."""
    rows = list(rows)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    sides = [">" if side == ">" else "<" for side in aligned]
    lines = [
        "  ".join(f"{c:{s}{w}}" for c, s, w in zip(row, sides, widths, strict=True)).rstrip()
        for row in rows
    ]
    border = "  ".join("=" * width for width in widths)
    return "\n".join([border, lines[0], border, *lines[1:], border])


def write_json(
    path: Path, found: Sequence[Measure], growths: Sequence[Growth], about: dict[str, Any]
) -> None:
    """Write everything down for a program, with the figures of each round."""
    content = {
        "machine": about,
        "measures": [_measure_data(measure) for measure in found],
        "growth": [vars(growth) for growth in growths],
    }
    path.write_text(json.dumps(content, indent=2) + "\n")


def _measure_data(measure: Measure) -> dict[str, Any]:
    data = {**vars(measure), "comparisons": []}
    for pair in measure.comparisons():
        spread = {"ratio": pair.ratio, "least": min(pair.ratios), "greatest": max(pair.ratios)}
        data["comparisons"].append({**vars(pair), **spread})
    del data["pairs"]
    return data


def write_svg(
    path: Path, found: Sequence[Measure], growths: Sequence[Growth], about: dict[str, Any]
) -> None:
    """Draw the ratios, and how the throughput grows.

    :raises ImportError: matplotlib is not installed.
    """
    pyplot = _pyplot()
    pairs = [(m, pair) for m in found if m.in_picture for pair in m.comparisons()]
    bars = [(measure, pair) for measure, pair in pairs if pair.ours == OURS]
    heights = [len(bars), 8] if growths else [len(bars)]
    size = (9, 0.34 * len(bars) + 1.2 + 3 * bool(growths))
    figure = pyplot.figure(figsize=size, layout="constrained")
    grid = figure.add_gridspec(len(heights), max(len(growths), 1), height_ratios=heights)
    _draw_bars(figure.add_subplot(grid[0, :]), bars)
    for number, growth in enumerate(growths):
        _draw_growth(figure.add_subplot(grid[1, number]), growth)
    figure.supxlabel(f"{about['python']}, {about['cpus']} x {about['cpu']}", fontsize=7)
    figure.savefig(path, format="svg", metadata={"Date": None})


def _pyplot() -> Any:
    import matplotlib as mpl

    mpl.use("svg")
    # The text stays text, and the same figures make the same file.
    mpl.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "same", "font.size": 9})
    from matplotlib import pyplot

    return pyplot


def _draw_bars(axes: Any, bars: Sequence[tuple[Measure, Comparison]]) -> None:
    """Draw how many times as good we are; right of 1 is better, whatever is counted."""
    for place, (measure, pair) in enumerate(bars):
        power = -1 if measure.less_is_better else 1
        times, ends = pair.ratio**power, sorted(ratio**power for ratio in pair.ratios)
        axes.barh(place, times - 1, left=1, color=_COLOURS[times >= 1], height=0.62)
        axes.plot([ends[0], ends[-1]], [place, place], color="#222222", linewidth=1)
        edge = max(ends[-1], 1)
        axes.text(edge * 1.08, place, f"{times:.3g}", va="center")
    axes.set_xscale("log")
    axes.axvline(1, color="#222222", linewidth=0.8)
    axes.set_yticks(
        range(len(bars)), [f"{m.title}\nvs. {p.baseline}" for m, p in bars], fontsize=7
    )
    axes.invert_yaxis()
    axes.margins(x=0.12)
    axes.set_title(f"{OURS}: times as good as the best other (line: least to greatest)")
    _plain_ticks(axes.xaxis)
    axes.grid(axis="x", alpha=0.3)


def _draw_growth(axes: Any, growth: Growth) -> None:
    by_size = growth.parameter == "octets"
    for name in next(iter(growth.points.values())):
        values = [median(samples[name]) for samples in growth.points.values()]
        if by_size:
            values = [
                v * growth.sizes[k] / 1e6 for k, v in zip(growth.points, values, strict=True)
            ]
        axes.plot(list(growth.points), values, marker="o", markersize=3, label=name)
    axes.set_xscale("log")
    axes.set_yscale("log") if by_size else axes.set_ylim(bottom=0)
    axes.set_title(growth.title, fontsize=9)
    axes.set_xlabel(growth.parameter)
    axes.set_ylabel("MB/s" if by_size else "messages/s")
    if not by_size:
        axes.set_xticks(list(growth.points), [str(value) for value in growth.points])
        axes.minorticks_off()
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)


def _plain_ticks(axis: Any) -> None:
    from matplotlib.ticker import FuncFormatter, NullFormatter

    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())
