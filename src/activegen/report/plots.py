"""Curves as SVG. No word from data enters a page's plot: names stand in its own legend."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from activegen.loop.metering import PLACES
from activegen.report.facts import Arm
from activegen.report.measures import Measure, named
from activegen.report.pictures import data_uri


@dataclass(frozen=True)
class Style:
    """How an arm looks in every plot; colour and marker each suffice to tell it.

    Args:
        colour: of Okabe and Ito's palette, which colour-blind readers can tell apart; then others.
        marker: of matplotlib.
        sign: the same marker as a character, for the legend.
        dashes: lengths of stroke and gap, as SVG has them; "" is a full line.
    """

    colour: str
    marker: str
    sign: str
    dashes: str


SVG = "image/svg+xml"
BASE = Style("#4d4d4d", "s", "■", "5 2.5")
STYLES = (
    Style("#0072b2", "o", "●", ""),
    Style("#d55e00", "^", "▲", ""),
    Style("#009e73", "D", "◆", "7 2"),
    Style("#cc79a7", "v", "▼", "2 1.5"),
    Style("#e69f00", "P", "✚", "7 2 2 2"),
    Style("#56b4e9", "X", "✖", "4 1"),
    Style("#882255", "*", "★", "1 1.5"),
    Style("#332288", "<", "◀", "9 2 2 2 2 2"),
    Style("#117733", ">", "▶", "3 3"),
    Style("#999933", "p", "⬟", "12 3"),
    Style("#7d6b3d", "h", "⬢", "6 2 1 2 1 2"),
)

PLACE_COLOURS: Mapping[str, str] = dict(
    zip(
        PLACES,
        "#d55e00 #e69f00 #f0e442 #0072b2 #56b4e9 #a9d8f5 #cc79a7 #882255 #7d8b99 #009e73 #4d4d4d "
        "#c8ccd1 #999933 #332288 #e4e7eb".split(),
        strict=True,
    )
)

_RC: Any = {
    "font.size": 9.5,
    "font.family": ["DejaVu Sans"],
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#9aa0a6",
    "axes.labelcolor": "#3c4043",
    "axes.titlesize": 10.5,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.titlecolor": "#202124",
    "xtick.color": "#5f6368",
    "ytick.color": "#5f6368",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e4e7eb",
    "hatch.linewidth": 0.6,
    "svg.hashsalt": "activegen",
}


def styles(arms: Sequence[Arm], baseline: Arm | None) -> dict[str, Style]:
    """One for each arm by name; the baseline is grey."""
    return named_styles([arm.name for arm in arms], baseline.name if baseline else None)


def named_styles(arms: Sequence[str], baseline: str | None) -> dict[str, Style]:
    """The same of names alone."""
    others = [arm for arm in arms if arm != baseline]
    found = {name: STYLES[index % len(STYLES)] for index, name in enumerate(others)}
    return found | ({baseline: BASE} if baseline is not None else {})


def figure_curves(arms: Sequence[Arm], looks: dict[str, Style], measure: Measure) -> str | None:
    """The figure on the test images against optimiser steps; None where nothing was evaluated."""
    curves = [(arm, [r for r in arm.rounds if r.get(named(r)) is not None]) for arm in arms]
    if not any(rounds for _, rounds in curves):
        return None
    with matplotlib.rc_context(_RC):
        figure, axes = _figure(f"{measure.title} on real test images", "optimiser steps")
        for arm, rounds in curves:
            steps, figures = [r["step"] for r in rounds], [r[named(r)] for r in rounds]
            _line(axes, steps, figures, looks[arm.name])
        axes.xaxis.set_major_locator(MaxNLocator(7, integer=True))
        axes.yaxis.set_major_formatter(PercentFormatter(1, symbol=" %"))
        axes.margins(x=0.03, y=0.08)
        return _uri(figure)


def interval_curves(
    curves: Mapping[str, Mapping[str, Any] | None],
    looks: dict[str, Style],
    title: str,
    below: str,
) -> str | None:
    """Means over seeds with their intervals; None where there is no curve.

    Args:
        curves: by arm, as ``proof.curves.Curve`` has them.
        looks: of the arms.
        title: above the plot.
        below: name of the amounts.
    """
    svg = interval_svg(curves, looks, title, below)
    return None if svg is None else data_uri(svg, SVG)


def interval_svg(
    curves: Mapping[str, Mapping[str, Any] | None],
    looks: dict[str, Style],
    title: str,
    below: str,
    alone: bool = False,
) -> bytes | None:
    """The same as a file; ``alone`` has the arms' names beside it and a white ground."""
    known = {arm: of for arm, of in curves.items() if of is not None}
    if not known:
        return None
    with matplotlib.rc_context(_RC):
        figure, axes = _figure(title, below)
        for arm, of in known.items():
            _line(axes, of["amounts"], of["mean"], looks[arm])
            axes.lines[-1].set_label(arm)
            if of["low"] is not None and len(of["amounts"]) > 1:
                colour = looks[arm].colour
                axes.fill_between(of["amounts"], of["low"], of["high"], color=colour, alpha=0.13)
            elif of["low"] is not None:
                ends = [of["low"][0], of["high"][0]]
                axes.plot([of["amounts"][0]] * 2, ends, color=looks[arm].colour, alpha=0.5)
        axes.xaxis.set_major_locator(MaxNLocator(7))
        axes.yaxis.set_major_formatter(PercentFormatter(1, symbol=" %"))
        axes.margins(x=0.03, y=0.08)
        if alone:
            figure.legend(loc="outside right center", frameon=False, handlelength=3)
        return _svg(figure, transparent=not alone)


def scatter(
    places: Mapping[str, tuple[float, float, tuple[float, float] | None]],
    looks: dict[str, Style],
    title: str,
    below: str,
) -> str | None:
    """Gains in points against shares; None without any.

    Args:
        places: by arm: a share, a gain, and the ends of its interval where it has one.
        looks: of the arms.
        title: above the plot.
        below: name of the shares.
    """
    if not places:
        return None
    with matplotlib.rc_context(_RC):
        figure, axes = _figure(title, below)
        axes.axhline(0, color="#9aa0a6", linewidth=0.8)
        for arm, (share, gain, ends) in places.items():
            _line(axes, [share], [100 * gain], looks[arm])
            if ends is not None:
                axes.plot([share] * 2, [100 * end for end in ends], color=looks[arm].colour)
        axes.xaxis.set_major_formatter(PercentFormatter(1, symbol=" %"))
        axes.xaxis.set_major_locator(MaxNLocator(7))
        axes.margins(x=0.08, y=0.1)
        return _uri(figure)


def _line(axes: Axes, amounts: Sequence[float], figures: Sequence[float], look: Style) -> None:
    dashes = tuple(float(length) for length in look.dashes.split())
    axes.plot(
        amounts,
        figures,
        color=look.colour,
        marker=look.marker,
        markersize=5,
        markeredgecolor="white",
        markeredgewidth=0.6,
        linewidth=1.8,
        linestyle=(0, dashes) if dashes else "-",
    )


def accepted_bars(arms: Sequence[Arm], looks: dict[str, Style]) -> str | None:
    """Accepted and other images of each round; None where nothing was asked for."""
    arms = [arm for arm in arms if any(r.get("proposed") for r in arm.rounds)]
    if not arms:
        return None
    with matplotlib.rc_context(_RC):
        figure, axes = _figure("Synthetic images: accepted, and rejected (hatched)", "round")
        width = 0.8 / len(arms)
        for index, arm in enumerate(arms):
            places = [r["round"] + (index - (len(arms) - 1) / 2) * width for r in arm.rounds]
            accepted = [r.get("accepted", 0) for r in arm.rounds]
            rejected = [r.get("proposed", 0) - r.get("accepted", 0) for r in arm.rounds]
            colour = looks[arm.name].colour
            axes.bar(places, accepted, width * 0.88, color=colour, linewidth=0.8, edgecolor=colour)
            axes.bar(
                places,
                rejected,
                width * 0.88,
                bottom=accepted,
                facecolor="white",
                edgecolor=colour,
                linewidth=0.8,
                hatch="/////",
            )
        axes.xaxis.set_major_locator(MaxNLocator(12, integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(6, integer=True))
        axes.grid(False, axis="x")
        axes.set_ylim(0, 1.06 * max(r.get("proposed", 0) for arm in arms for r in arm.rounds))
        return _uri(figure)


def cost_bars(arms: Sequence[Arm], looks: dict[str, Style]) -> str | None:
    """Seconds of each arm, place by place; None where they were not measured."""
    arms = [arm for arm in arms if arm.cost.total]
    if not arms:
        return None
    with matplotlib.rc_context(_RC):
        figure, axes = _figure("Seconds of each arm", "seconds", 1.1 + 0.42 * len(arms))
        longest = max(arm.cost.total for arm in arms)
        for row, arm in enumerate(arms):
            begin = 0.0
            for place, seconds in arm.cost.seconds.items():
                colour = PLACE_COLOURS[place]
                axes.barh(row, seconds, 0.62, begin, color=colour, edgecolor="white", linewidth=0.5)
                begin += seconds
            # its colour is one of the places' too
            axes.plot(-0.03 * longest, row, looks[arm.name].marker, color="#202124", clip_on=False)
        axes.set_yticks([])
        axes.invert_yaxis()
        axes.set_xlim(0, 1.02 * longest)
        axes.grid(False, axis="y")
        return _uri(figure)


def _figure(title: str, below: str, height: float = 3.3) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(5.8, height), layout="constrained")
    axes = figure.add_subplot()
    axes.set_title(title, pad=10)
    axes.set_xlabel(below)
    axes.tick_params(length=0)
    return figure, axes


def _uri(figure: Figure) -> str:
    return data_uri(_svg(figure), SVG)


def _svg(figure: Figure, transparent: bool = True) -> bytes:
    file = io.BytesIO()
    figure.savefig(file, format="svg", metadata={"Date": None}, transparent=transparent)
    return file.getvalue()
