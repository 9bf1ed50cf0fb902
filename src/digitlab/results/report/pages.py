"""A report as one HTML page that needs no network, and as Markdown beside its pictures."""

import base64
import functools
import importlib.resources
from pathlib import Path

from jinja2 import Environment, StrictUndefined, Template

from digitlab.results.report.contents import Report
from digitlab.results.tables import markdown_table
from digitlab.tracking.names import REPORT_MARKDOWN, REPORT_PAGE

NUM_SHOWN = 20  # rows of the table, and findings; the others fold out


def write_html(report: Report, folder: Path) -> Path:
    """With its pictures, which lie in `folder`, inside."""
    pictures = {
        file: base64.b64encode((folder / file).read_bytes()).decode()
        for figure in report.figures
        for file in figure.files
    }
    file = folder / REPORT_PAGE
    page = _template().render(
        report=report,
        pictures=pictures,
        numeric=_numeric_columns(report),
        num_shown=NUM_SHOWN,
    )
    file.write_text(page, "utf-8")
    return file


def write_markdown(report: Report, folder: Path) -> Path:
    """Refers to the pictures in `folder`."""
    parts = [f"# {_text(report.title)}", f"*{_text(report.question)}*"]
    parts += [_text(line) for line in report.answer]
    parts.append(_code(report.commands))
    parts += ["## Results", markdown_table(report.table).replace("*", r"\*")]
    parts.append(_text(report.legend))
    if report.findings:
        parts += ["## Is it real?", _text(report.tested)]
        parts.append("\n".join(f"- {_text(line)}" for line in report.findings))
    parts += [_text(note) for note in report.notes]
    for figure in report.figures:
        parts.append(f"## {_text(figure.title)}")
        parts.append(" ".join(f"![{_text(figure.title)}](<{file}>)" for file in figure.files))
        parts.append(_text(figure.caption))
    parts += [_text(line) for line in report.missing]
    parts += ["## Environment", "\n".join(f"- {k}: {_text(v)}" for k, v in report.environment.items())]
    parts.append("## How to reproduce")
    for command, meaning in report.reproduce:
        parts += [_text(meaning), _code([command])]
    file = folder / REPORT_MARKDOWN
    file.write_text("\n\n".join(parts) + "\n", "utf-8")
    return file


@functools.cache
def _template() -> Template:
    source = importlib.resources.files(__package__).joinpath("report.html.j2").read_text("utf-8")
    return Environment(autoescape=True, undefined=StrictUndefined).from_string(source)


def _numeric_columns(report: Report) -> set[int]:
    """Those whose cells all begin with a digit, a sign or a star, or are empty."""
    columns = zip(*report.table[1:], strict=True)
    return {
        number
        for number, cells in enumerate(columns)
        if number != 1 and all(cell[:1] in "0123456789+-*" for cell in cells)
    }


def _text(text: str) -> str:
    """Without what Markdown and HTML would make of it."""
    for sign in "\\`*_<[":
        text = text.replace(sign, f"\\{sign}")
    return " ".join(text.split())


def _code(lines: list[str]) -> str:
    return "\n".join(f"    {line}" for line in "\n".join(lines).splitlines())
