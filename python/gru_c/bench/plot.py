"""The benchmark's picture: every candidate's time as a multiple of gru_c's, section by section. Must not measure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, BinaryIO, Final

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from gru_c.bench.candidates import OWN
from gru_c.bench.measure import Row, geometric_mean
from gru_c.bench.report import human

# candidate -> (name in words, colour, marker)
STYLES: Final = {
    "torch": ("PyTorch, nn.GRU", "#d1495b", "o"),
    "cell": ("PyTorch, nn.GRUCell", "#edae49", "D"),
    "onnxruntime": ("ONNX Runtime", "#00798c", "s"),
    "openvino": ("OpenVINO", "#8d5fa8", "^"),
}
NETWORK, FLOOR = "#0b6fb8", "#222222"
TIMES: Final = "\N{MULTIPLICATION SIGN}"

# Inches: everything is placed by hand, so that all panels share one scale and nothing moves with the labels' widths.
ROW, TITLE, TICKS = 0.27, 0.3, 0.42
MARGIN, LABEL, TIME, PLOT, RATIO = 0.2, 2.0, 0.75, 4.3, 0.6
HEAD, FOOT = 1.5, 0.6


def _height(rows: Sequence[Row]) -> float:
    return TITLE + ROW * len(rows) + TICKS


def _columns(sections: Sequence[list[Row]]) -> list[list[list[Row]]]:
    """The sections in two columns of about the same height, in reading order."""
    if len(sections) < 2:
        return [list(sections)]
    heights = [_height(rows) for rows in sections]
    cut = min(range(1, len(sections)), key=lambda at: abs(sum(heights[:at]) - sum(heights[at:])))
    return [list(sections[:cut]), list(sections[cut:])]


def _panel(axes: Any, rows: list[Row], limits: tuple[float, float]) -> None:
    axes.axvspan(limits[0], 1, color=NETWORK, alpha=0.06, linewidth=0)
    axes.axvline(1, color=NETWORK, linewidth=1.6)
    for y, row in enumerate(rows):
        own = row.own.median
        peers = {name: row.times[name].median / own for name in STYLES if name in row.times}
        if peers:
            axes.plot([1, max(peers.values())], [y, y], color="#c8c8c8", linewidth=1, zorder=1)
            best = min(peers.values())
            text = {"fontweight": "bold", "color": "#b00020"} if best < 1 else {"color": "#444444"}
            axes.text(
                limits[1] * 1.08,
                y,
                f"{best:.3g}{TIMES}" if best >= 10 else f"{best:.2f}{TIMES}",
                va="center",
                fontsize=8.5,
                **text,
            )
        axes.plot([row.of_floor], [y], marker="|", color=FLOOR, markersize=9, markeredgewidth=2, linestyle="none")
        axes.plot([1], [y], marker="o", color=NETWORK, markersize=6, linestyle="none", zorder=3)
        for name, ratio in peers.items():
            _, colour, marker = STYLES[name]
            axes.plot([ratio], [y], marker=marker, color=colour, markersize=5.5, linestyle="none", zorder=2)
    for y, row in enumerate(rows):
        threads = "" if row.cell.threads == 1 else f", {row.cell.threads} threads"
        place = {"transform": axes.get_yaxis_transform(), "va": "center", "ha": "right", "fontsize": 8.5}
        axes.text(-(TIME + 0.1) / PLOT, y, row.cell.label + threads, **place)
        axes.text(-0.1 / PLOT, y, human(row.own.median), color=NETWORK, **place)
    axes.set_yticks([])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xscale("log")
    axes.set_xlim(*limits)
    wide = limits[1] / limits[0] > 300
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 3.0) if wide else (1.0, 2.0, 5.0)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}{TIMES}"))
    axes.tick_params(axis="x", labelsize=8)
    axes.grid(axis="x", alpha=0.3)
    axes.set_axisbelow(True)
    axes.set_title(rows[0].cell.section, loc="left", x=-(LABEL + TIME) / PLOT, fontsize=10.5, fontweight="bold")


def _head(figure: Figure, rows: list[Row]) -> None:
    def mark(marker: str, colour: str, label: str, **more: Any) -> Any:
        return Line2D([], [], marker=marker, color=colour, linestyle="none", label=label, **more)

    width, height = figure.get_size_inches()
    best = [found[1] for row in rows if (found := row.best_peer) is not None]
    worst = f"; {geometric_mean(best):.1f}{TIMES} is their geometric mean" if best else ""
    figure.text(MARGIN / width, 1 - 0.35 / height, "How long a call takes, gru_c = 1", fontsize=15, fontweight="bold")
    told = (
        "Medians on a log scale: further right is slower. In blue gru_c's own time,\n"
        f"at the right edge that of the fastest other as a multiple of it{worst}."
    )
    figure.text(MARGIN / width, 1 - 0.82 / height, told, fontsize=9.5, color="#444444")
    marks = [mark("|", FLOOR, "what the machine allows", markersize=10, markeredgewidth=2), mark("o", NETWORK, OWN)]
    seen = {name for row in rows for name in row.times}
    marks += [mark(marker, colour, label) for name, (label, colour, marker) in STYLES.items() if name in seen]
    place = {"loc": "upper left", "bbox_to_anchor": ((MARGIN - 0.15) / width, 1 - 0.85 / height)}
    figure.legend(handles=marks, ncols=3 if width < 10 else len(marks), frameon=False, fontsize=9.5, **place)


def draw(file: BinaryIO, rows: list[Row], machine: Mapping[str, Any], versions: Mapping[str, str]) -> None:
    """Writes the PNG of the measured rows."""
    names = dict.fromkeys(row.cell.section for row in rows)
    columns = _columns([[row for row in rows if row.cell.section == name] for name in names])
    ratios = [one.median / row.own.median for row in rows for name, one in row.times.items() if name in STYLES]
    limits = (0.8 * min([row.of_floor for row in rows] + [0.5, *ratios]), 1.25 * max([2.0, *ratios]))
    height = HEAD + max(sum(map(_height, column)) for column in columns) + FOOT
    width = (MARGIN + LABEL + TIME + PLOT + RATIO) * len(columns)
    with mpl.rc_context({"axes.spines.top": False, "axes.spines.right": False, "axes.spines.left": False}):
        figure = Figure(figsize=(width, height))  # no pyplot: no window, no global state
        _head(figure, rows)
        for at, column in enumerate(columns):
            left, top = width / len(columns) * at + MARGIN + LABEL + TIME, height - HEAD
            for section in column:
                inches = ROW * len(section)
                _panel(figure.add_axes(_part(left, top - TITLE - inches, PLOT, inches, width, height)), section, limits)
                top -= _height(section)
        named = ", ".join(f"{name} {version}" for name, version in versions.items())
        where = f"{machine['cpu']}, {machine['isa']}, {str(machine['date'])[:10]}\n{named}"
        figure.text(MARGIN / width, 0.15 / height, where, fontsize=8, color="#666666")
        figure.savefig(file, format="png", dpi=120)


def _part(
    left: float, bottom: float, wide: float, high: float, width: float, height: float
) -> tuple[float, float, float, float]:
    """A rectangle in inches as parts of a figure of so many inches."""
    return left / width, bottom / height, wide / width, high / height
