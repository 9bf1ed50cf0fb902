"""How names and values read in tables and figures; tables as Markdown and LaTeX."""

from collections.abc import Sequence

# Knobs that say where and under which name, not what: never worth a column.
UNINTERESTING = {"run_name", "study", "tracking.uri", "data.root", "data.path", "device", "model.name"}


def markdown_table(rows: Sequence[Sequence[str]]) -> str:
    """The first row is the header; without a line's end at its end."""
    lines = [rows[0], ["---"] * len(rows[0]), *rows[1:]]
    cells = [[" ".join(cell.split()).replace("|", r"\|") for cell in line] for line in lines]
    return "\n".join(f"| {' | '.join(line)} |" for line in cells)


def latex_table(rows: Sequence[Sequence[str]]) -> str:
    """The first row is the header; needs the package booktabs."""
    lines = [" & ".join(map(_latex, row)) + r" \\" for row in rows]
    columns = "l" * len(rows[0])
    return "\n".join(
        [
            rf"\begin{{tabular}}{{{columns}}}",
            r"\toprule",
            lines[0],
            r"\midrule",
            *lines[1:],
            r"\bottomrule",
            r"\end{tabular}",
        ]
    )


def _latex(text: str) -> str:
    """The text, not what TeX would make of it."""
    signs = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    signs |= {sign: f"\\{sign}" for sign in "&%$#_{}"} | {"±": r"$\pm$", "…": r"\dots{}"}
    signs |= {"<": r"$<$", ">": r"$>$"}
    return " ".join("".join(signs.get(sign, sign) for sign in text).split())


def short_title(knob: str) -> str:
    """The leaf of a knob (`model.name`: the group)."""
    group, _, leaf = knob.partition(".")
    return group if leaf == "name" else leaf or group


def knob_title(knob: str) -> str:
    """For an axis: `learning rate (optimizer)`, `batch size`, `model`."""
    group, _, leaf = knob.partition(".")
    named = short_title(knob).replace("_", " ")
    return f"{named} ({group})" if leaf not in ("", "name") else named


def metric_title(metric: str, *, unit: bool = True) -> str:
    """For an axis: `validation accuracy (%)`, `test loss (nats)`."""
    named = metric.replace("/", " ").replace("_", " ")
    units = {"accuracy": " (%)", "loss": " (nats)"}
    return named + (units.get(metric.rpartition("/")[2], "") if unit else "")


def shortened(text: str, length: int) -> str:
    """Head and tail, for names often differ at their ends."""
    text = " ".join(text.split())
    tail = length // 3
    return text if len(text) <= length else f"{text[: length - tail - 1]}…{text[-tail:]}"


def percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.2f} %"
