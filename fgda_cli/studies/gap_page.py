"""The page of `fgda gap`: pictures of both sides beside each other, and what was measured as
curves.
"""

from __future__ import annotations

from html import escape

from ..data.images import evenly_spaced
from ..visual import html
from ..visual.plots import curves
from ..visual.tables import as_option
from .gap import DomainStatistics, Gap

# pictures of each side
SHOWN = 5
UNITS = {
    "brightness": "% of the range, target less source",
    "contrast": "deviation of the target's brightness over the source's",
    "colour_distance": "deviations between the mean colours (Lab)",
    "sharpness_db": "dB in fine detail; above 0 the source is sharper",
    "layout_correlation": "correlation of brightness and edges by height, 1: alike",
    "horizon_shift": "shares of the height by which the target lies lower",
    "class_distance": "share of the pixels that would have to change their class, 0 to 1",
}

HEADINGS = ("figure", "source to target", "between halves of the target", "unit")


def gap_page(gap: Gap) -> str:
    advice = (
        (f"<code>{escape(as_option(one.what))}</code>", escape(one.why)) for one in gap.advice
    )
    figures = (
        (_title(name), f"{value:+.2f}", _within(gap, name), escape(UNITS[name]))
        for name, value in gap.figures.items()
    )
    names = [
        f"{domain.name}, {domain.count} images, {domain.size[0]}x{domain.size[1]}"
        for domain in (gap.source, gap.target)
    ]
    source, target = sides(gap)
    spectra = {
        source: list(enumerate(gap.source.look.spectrum.tolist())),
        target: list(enumerate(gap.target.look.spectrum.tolist())),
    }
    return html.page(
        "Gap",
        names,
        html.section(
            "What to set",
            html.table(("setting", "why"), advice, kinds=["words"]),
            "Rules of thumb: fgda verdict tells afterwards whether it helped.",
        ),
        html.section(
            "Figures",
            html.table(HEADINGS, figures, kinds=["words"]),
            "Two halves of the target differ by chance and by scene alone: a figure that is hardly"
            " larger is small.",
        ),
        html.section("Side by side", _pairs(gap.source, gap.target)),
        html.section(
            "Classes", _classes(gap), "Pixels % in the source, and expected on the target."
        ),
        html.section(
            "Spectrum",
            html.figure_svg(
                curves(spectra, "frequency, coarse to fine", of="log10 of the power", log=False)
            ),
        ),
        html.section(
            "By height",
            html.figure_svg(
                curves(
                    _profiles(gap),
                    "row of 32, top to bottom of the image",
                    of="deviations from the mean",
                    log=False,
                    sides=2,
                )
            ),
        ),
    )


def _title(name: str) -> str:
    return name.removesuffix("_db").replace("_", " ")


def _within(gap: Gap, name: str) -> str:
    return f"{gap.within[name]:+.2f}" if name in gap.within else ""


def sides(gap: Gap) -> tuple[str, str]:
    """Return the names of both sides, told apart where they are equal."""
    source = gap.source.name
    target = gap.target.name
    return (source, target) if source != target else (f"{source} (source)", f"{target} (target)")


def _profiles(gap: Gap) -> dict[str, list[tuple[int, float]]]:
    return {
        f"{name}, {what}": list(enumerate(domain.look.profile[row].tolist()))
        for name, domain in zip(sides(gap), (gap.source, gap.target), strict=True)
        for row, what in enumerate(("brightness", "edges"))
    }


def _pairs(source: DomainStatistics, target: DomainStatistics) -> str:
    parts = []
    for domain in (source, target):
        chosen = evenly_spaced(range(len(domain.frames.images)), SHOWN)
        figures = [
            html.image(domain.frames.images[number], domain.frames.name(number))
            for number in chosen
        ]
        parts.append(html.scene(domain.name, f"{domain.count} images", figures))
    return "".join(parts)


def _classes(gap: Gap) -> str:
    rows = []
    for name, colour, share, guess in zip(
        gap.classes.names, gap.classes.palette, gap.source.shares, gap.guess, strict=True
    ):
        label = f"{html.swatch(colour)}{escape(name)}"
        rows.append((label, f"{100 * share:.1f}", f"{100 * guess:.1f}"))
    by = "guessed from colour and height" if gap.is_guess else "as a model predicts"
    return html.table(("class", "source, %", f"target, % ({by})"), rows)
