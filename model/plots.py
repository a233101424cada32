"""Plots of reports: PNG files for a model card or a paper, drawn from scores alone.

Needs matplotlib, which the extra `train` brings; nothing else here does. Colours are those of Okabe and Ito, which
people with any common colour blindness tell apart, and no two bundles differ by colour alone: marker and line differ,
too. Bars and bands are 95 % intervals by patient bootstrap, as in the tables.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from model.measures import SIZE_CLASSES_MM, size_measure
from model.metrics_calibration import BINS, risk_coverage
from model.report import Report
from model.statistics import Interval, bootstraps, ratio_of
from model.volume import Float64

RESAMPLES = 2000
"""Enough for a band in a plot; tables take more."""
_STYLE: Any = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e6e6e6",
    "legend.frameon": False,
    "figure.dpi": 150,
    "figure.constrained_layout.use": True,
}
_LOOKS = (
    ("#0072B2", "o", "-"),
    ("#D55E00", "s", "--"),
    ("#009E73", "^", "-."),
    ("#CC79A7", "D", ":"),
    ("#E69F00", "v", (0, (5, 1, 1, 1, 1, 1))),
    ("#56B4E9", "P", (0, (1, 1))),
)
_GREY = "#555555"
_FEWEST_OF_A_SHAPE = 10
"""Of fewer cases a smooth distribution would be invented."""


class PlotsUnavailable(ImportError):
    """matplotlib is not installed; the message says how to get it."""


@dataclass(frozen=True)
class Look:
    """How one report is drawn in every plot."""

    colour: str
    marker: str
    line: Any


def write_plots(folder: Path, reports: Sequence[Report]) -> tuple[Path, ...]:
    """All plots of one or several reports on the same cases, as PNG files in `folder`; returns their paths.

    Raises PlotsUnavailable without matplotlib, ValueError for no report or more than there are looks.
    """
    if not 1 <= len(reports) <= len(_LOOKS):
        raise ValueError(f"plots show 1 to {len(_LOOKS)} reports, got {len(reports)}")
    return tuple(
        _written(folder / f"{name}.png", plot, reports)
        for name, plot in PLOTS.items()
        if any(report[plot.needs].is_defined for report in reports)
    )


def dice_per_case(figure: Any, reports: Sequence[Report]) -> None:
    """Left: every case, the shape of their distribution, and the mean. Right: share of cases above each Dice."""
    spread, above = figure.subplots(1, 2, width_ratios=(1.2, 1))
    letters = "ABCDEF"[: len(reports)]
    for place, (report, look) in enumerate(_looks(reports)):
        dices = np.array([case.dice for case in report.cases])
        _violin(spread, place, dices, look)
        _interval(spread, place, report.dice, colour="black", marker="D")
        share = 100 * (1 - np.arange(len(dices)) / len(dices))
        above.step([0.0, *np.sort(dices)], [100.0, *share], where="pre", **_line(look))
        above.plot([], [], label=f"{letters[place]}  {report.bundle}: {report.dice}", **_line(look, marker=True))
    spread.set(ylabel="Dice per case", ylim=(-0.03, 1.03), xlim=(-0.6, len(reports) - 0.4))
    spread.set_xticks(range(len(reports)), letters)
    spread.set_title("each point a case; diamond: mean with 95 % CI", loc="left", fontsize=8)
    above.set(xlabel="Dice", ylabel="cases with at least this Dice (%)", xlim=(0, 1.01), ylim=(0, 103))
    _legend_below(figure, above)


def recall_by_size(figure: Any, reports: Sequence[Report]) -> None:
    """Lesions found, by the long axis of the true lesion."""
    axes = figure.subplots()
    step = 0.8 / (len(reports) + 1)
    for rank, (report, look) in enumerate(_looks(reports)):
        offset = (rank - (len(reports) - 1) / 2) * step
        for place, size in enumerate(SIZE_CLASSES_MM):
            _interval(axes, place + offset, report[size_measure(size)], colour=look.colour, marker=look.marker)
        axes.plot([], [], color=look.colour, marker=look.marker, linestyle="", label=report.bundle)
    counts = [_lesions_of(reports[0], limits) for limits in SIZE_CLASSES_MM.values()]
    labels = [f"{size}\n{count} lesions" for size, count in zip(SIZE_CLASSES_MM, counts, strict=True)]
    axes.set_xticks(range(len(labels)), labels)
    axes.set(ylabel="lesions found (share)", ylim=(-0.03, 1.05), xlabel="longest axial diameter of the true lesion")
    axes.set_xlim(-0.5, len(labels) - 0.5)
    _legend_below(figure, axes)


def agreement(figure: Any, reports: Sequence[Report]) -> None:
    """Bland–Altman (Lancet 1986;1:307) of lesions found: diameter in mm, volume in per cent of the pair's mean.

    Volumes span four decades and their errors grow with them, so a difference in ml would show the largest only. The
    limits of agreement, mean ± 1.96 SD, take lesions as independent; several of one patient are not quite.
    """
    rows = figure.subplots(len(reports), 2, squeeze=False, sharex="col", sharey="col")
    for (diameter, volume), (report, look) in zip(rows, _looks(reports), strict=True):
        pairs = [pair for case in report.cases for pair in case.pairs()]
        answered_mm, true_mm = (np.array([pair[side].long_axis_mm for pair in pairs]) for side in (0, 1))
        answered_ml, true_ml = (np.array([pair[side].volume_ml for pair in pairs]) for side in (0, 1))
        mean_ml = (answered_ml + true_ml) / 2
        _bland_altman(diameter, (answered_mm + true_mm) / 2, answered_mm - true_mm, "mm", look)
        _bland_altman(volume, mean_ml, 100 * (answered_ml - true_ml) / mean_ml, "%", look)
        diameter.set_title(f"{report.bundle}: {len(pairs)} lesions found", loc="left", fontsize=8)
        diameter.set_ylabel("answered − true\nlong axis (mm)")
        volume.set_ylabel("answered − true\nvolume (% of mean)")
        _plain_decades(volume)
    rows[-1][0].set_xlabel("mean long axis of answer and truth (mm)")
    rows[-1][1].set_xlabel("mean volume of answer and truth (ml)")


def reliability(figure: Any, reports: Sequence[Report]) -> None:
    """Share of lesion among voxels of like probability, within 10 mm of true lesions; below, how many those are."""
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    upper.plot([0, 1], [0, 1], color=_GREY, linewidth=1, label="perfectly calibrated")
    for report, look in _looks(reports):
        bins = _bins_of(report)
        low, high = ([getattr(share, of) for share in bins.shares] for of in ("low", "high"))
        upper.fill_between(bins.probability, low, high, color=look.colour, alpha=0.18, linewidth=0)
        label = f"{report.bundle}: ECE {report['ece']}"
        upper.plot(bins.probability, [share.value for share in bins.shares], label=label, **_line(look, marker=True))
        edges = np.linspace(0, 1, BINS + 1)
        lower.stairs(bins.voxels_percent, edges, color=look.colour, linestyle=look.line, linewidth=1.5)
    upper.set(ylabel="share of voxels that are lesion", ylim=(0, 1.02), xlim=(0, 1))
    lower.set(xlabel="probability of lesion", ylabel="voxels (%)", yscale="log", ylim=(None, 100))
    lower.yaxis.set_major_formatter(lambda percent, _: f"{percent:g}")
    lower.yaxis.set_minor_formatter(lambda *_: "")
    _legend_below(figure, upper)


def selection(figure: Any, reports: Sequence[Report]) -> None:
    """Risk–coverage: mean 1 − Dice when only the most confident cases are answered; dotted, a perfect confidence."""
    axes = figure.subplots()
    for report, look in _looks(reports):
        confidence, risk = (
            np.array(of) for of in zip(*((c.confidence, 1 - c.dice) for c in report.cases), strict=True)
        )
        told, perfect = risk_coverage(confidence, risk), risk_coverage(-risk, risk)
        label = f"{report.bundle}: AURC {report['aurc']}, at best {perfect.risk.mean():.3f}"
        axes.plot(100 * told.coverage, told.risk, label=label, **_line(look))
        axes.plot(100 * perfect.coverage, perfect.risk, color=look.colour, linestyle=":", linewidth=1)
    axes.set(xlabel="coverage: most confident cases (%)", ylabel="risk: mean of 1 − Dice", xlim=(0, 101))
    axes.set_ylim(bottom=0)
    axes.set_title("dotted: a confidence that knows the Dice", loc="left", fontsize=8)
    _legend_below(figure, axes)


@dataclass(frozen=True)
class Plot:
    """One file: how it is drawn, its size in inches, and the measure without which there is nothing to draw."""

    draw: Callable[[Any, Sequence[Report]], None]
    needs: str
    width: float = 5.2
    height: float = 3.6
    height_per_report: float = 0.0


PLOTS = {
    "dice-per-case": Plot(dice_per_case, "dice", width=7.2),
    "recall-by-size": Plot(recall_by_size, "lesion_recall"),
    "agreement": Plot(agreement, "long_axis_error_mm", width=7.2, height=0.6, height_per_report=2.3),
    "reliability": Plot(reliability, "ece", height=5.2),
    "risk-coverage": Plot(selection, "aurc"),
}


def _written(path: Path, plot: Plot, reports: Sequence[Report]) -> Path:
    with _figure(plot.width, plot.height + plot.height_per_report * len(reports)) as figure:
        plot.draw(figure, reports)
        path.parent.mkdir(parents=True, exist_ok=True)
        # no date and no version in the file: the same reports give the same bytes
        figure.savefig(path, metadata={"Software": None})
    return path


@contextmanager
def _figure(width: float, height: float) -> Iterator[Any]:
    """A figure of so many inches that belongs to no window and no global state."""
    try:
        from matplotlib import rc_context
        from matplotlib.figure import Figure
    except ImportError as error:
        raise PlotsUnavailable(
            "plots need matplotlib, which is not installed: pip install 'crlm-node[train]'"
        ) from error
    with rc_context(_STYLE):
        yield Figure(figsize=(width, height))


def _looks(reports: Sequence[Report]) -> Iterator[tuple[Report, Look]]:
    return ((report, Look(*look)) for report, look in zip(reports, _LOOKS, strict=False))


def _line(look: Look, *, marker: bool = False) -> dict[str, Any]:
    kept = {"color": look.colour, "linestyle": look.line, "linewidth": 1.6}
    return {**kept, "marker": look.marker, "markersize": 4} if marker else kept


def _violin(axes: Any, place: float, values: Float64, look: Look) -> None:
    if len(values) >= _FEWEST_OF_A_SHAPE and np.ptp(values) > 0:
        (body,) = axes.violinplot(values, [place], widths=0.8, showextrema=False)["bodies"]
        body.set(facecolor=look.colour, alpha=0.2, linewidth=0)
    # the same spread of the points in every drawing
    aside = np.random.default_rng(0).uniform(-0.16, 0.16, len(values))
    axes.scatter(place + aside, values, s=9, color=look.colour, marker=look.marker, alpha=0.55, linewidths=0)


def _interval(axes: Any, place: float, interval: Interval, *, colour: str, marker: str) -> None:
    if not interval.is_defined:
        return
    reach = np.maximum([[interval.value - interval.low], [interval.high - interval.value]], 0)
    axes.errorbar([place], [interval.value], yerr=reach, color=colour, marker=marker, markersize=5, capsize=4, zorder=4)


def _bland_altman(axes: Any, mean: Float64, difference: Float64, unit: str, look: Look) -> None:
    axes.scatter(mean, difference, s=11, color=look.colour, marker=look.marker, alpha=0.6, linewidths=0)
    axes.axhline(0, color=_GREY, linewidth=0.8)
    if len(difference) < 2:
        return
    bias, spread = float(difference.mean()), 1.96 * float(difference.std(ddof=1))
    _level(axes, bias, "-", f"mean\n{_signed(bias)} {unit}")
    _level(axes, bias + spread, "--", f"+1.96 SD\n{_signed(bias + spread)} {unit}")
    _level(axes, bias - spread, "--", f"−1.96 SD\n{_signed(bias - spread)} {unit}")


def _level(axes: Any, value: float, line: str, words: str) -> None:
    axes.axhline(value, color="black", linestyle=line, linewidth=1)
    axes.annotate(
        words,
        (1, value),
        xycoords=("axes fraction", "data"),
        xytext=(3, 0),
        textcoords="offset points",
        va="center",
        fontsize=7,
    )


def _plain_decades(axes: Any) -> None:
    """A logarithmic axis that says 0.5, 1, 2, 5 and not 2 × 10⁰, however few decades it spans."""
    from matplotlib.ticker import LogLocator

    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.xaxis.set_minor_formatter(lambda *_: "")


def _signed(value: float) -> str:
    return f"{value:+.1f}".replace("-", "−")


class _Bins(NamedTuple):
    """The bins of a report that hold a voxel; `voxels_percent` is of all bins."""

    shares: tuple[Interval, ...]
    probability: Float64
    voxels_percent: Float64


def _bins_of(report: Report) -> _Bins:
    rows = np.array([np.zeros(3 * BINS) if c.band is None else c.band.row[: 3 * BINS] for c in report.cases])
    voxels, probability, positive = rows[:, :BINS], rows[:, BINS : 2 * BINS], rows[:, 2 * BINS :]
    filled = np.flatnonzero(voxels.sum(axis=0))
    shares = [ratio_of(positive[:, i], voxels[:, i]) for i in filled]
    mean = probability.sum(axis=0)[filled] / voxels.sum(axis=0)[filled]
    percent = 100 * voxels.sum(axis=0) / max(1.0, float(voxels.sum()))
    return _Bins(bootstraps(shares, report.sample, resamples=RESAMPLES), mean, percent)


def _lesions_of(report: Report, limits_mm: tuple[float, float]) -> int:
    low, high = limits_mm
    of_first = [case for case in report.cases if case.training == report.cases[0].training]
    return sum(low <= lesion.long_axis_mm < high for case in of_first for lesion in case.true)


def _legend_below(figure: Any, axes: Any) -> None:
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", fontsize=8)
