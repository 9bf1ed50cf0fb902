"""The interactive page of a sweep: one HTML file with plotly's figures and the table.

Knows no matplotlib, no tracker and no torch. Plotly is slow to import and stays inside its functions.
"""

import html
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from digitlab.results.curves import OTHERS_COLOUR, best_and_others, value_range
from digitlab.results.scales import COLOUR_SCALES, titled_scales
from digitlab.results.summary import Summary

STYLE = """body { font: 15px/1.4 system-ui, sans-serif; margin: 2rem } div { overflow-x: auto }
td, th { padding: .2rem .8rem .2rem 0; text-align: left; white-space: nowrap }"""


def write_page(summary: Summary, file: Path) -> None:
    """One page that needs no network: plotly itself is in it, once, which makes 5 MB."""
    drawn = [_coordinates(summary), _learning_curves(summary)]
    figures = [figure for figure in drawn if figure is not None]
    settings = {"full_html": False, "config": {"displaylogo": False}}
    parts = [f.to_html(include_plotlyjs=place == 0, **settings) for place, f in enumerate(figures)]
    rows, count = summary.rows, len(summary.results)
    lines = [_html_row("th", rows[0]), *(_html_row("td", row.values()) for row in rows)] if rows else []
    parts += [f"<p>{html.escape(note)}</p>" for note in summary.notes]
    parts.append(f"<table>{''.join(lines)}</table>")
    title = f"{summary.metric} of {count} trial{'s' * (count != 1)}"
    head = f"<meta charset=utf-8><title>{title}</title><style>{STYLE}</style><h1>{title}</h1>"
    body = "\n".join(f"<div>{part}</div>" for part in parts)
    file.write_text(f"<!doctype html><html lang=en>{head}\n{body}</html>\n", encoding="utf-8")


def _coordinates(summary: Summary) -> Any:
    """None for less than two axes: plotly would show nothing."""
    import plotly.graph_objects as go  # type: ignore[import-untyped]

    scales = titled_scales(summary)
    if len(scales) < 2:
        return None
    dimensions = [
        {
            "label": html.escape(title),
            "values": scale.places,
            "range": [0, 1],
            "tickvals": [height for height, _ in scale.ticks],
            "ticktext": [html.escape(label) for _, label in scale.ticks],
        }
        for title, scale in scales
    ]
    colours = {
        "color": scales[-1][1].places,
        "cmin": 0,
        "cmax": 1,
        "colorscale": COLOUR_SCALES[summary.metric],
    }
    figure = go.Figure(go.Parcoords(dimensions=dimensions, line=colours))
    width = max(900, 150 * len(scales))
    return figure.update_layout(height=480, width=width, margin={"l": 130, "r": 90, "t": 70, "b": 40})


def _learning_curves(summary: Summary) -> Any:
    import plotly.graph_objects as go

    best, others = best_and_others(summary)
    if not best + others:
        return None
    figure = go.Figure()
    if others:  # one trace, with gaps in between: a browser takes seconds for a thousand
        epochs = [epoch for curve in others for epoch in [*curve.epochs, None]]
        means = [mean for curve in others for mean in [*curve.mean, None]]
        names = [html.escape(curve.label) for curve in others for _ in [*curve.epochs, None]]
        grey = {"color": OTHERS_COLOUR, "width": 1}
        figure.add_scatter(x=epochs, y=means, text=names, mode="lines", line=grey, name="other trials")
    for curve in best:
        name = html.escape(curve.label)
        figure.add_scatter(x=curve.epochs, y=curve.mean, mode="lines+markers", name=name)
    figure.update_xaxes(title="epoch").update_yaxes(
        title=summary.metric, range=value_range(best) if best else None
    )
    return figure.update_layout(height=480, width=1100, template="plotly_white", showlegend=True)


def _html_row(cell: str, texts: Iterable[str]) -> str:
    return "<tr>" + "".join(f"<{cell}>{html.escape(text)}</{cell}>" for text in texts) + "</tr>\n"
