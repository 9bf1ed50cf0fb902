"""Everything that is shown on the terminal: a user's text is text, never markup or an escape sequence.

Names, tags and errors may come from a store that others write to.
"""

import io
import sys
import unicodedata
from collections.abc import Collection, Iterable, Sequence
from typing import IO, TYPE_CHECKING, Any

import click

if TYPE_CHECKING:  # rich takes longer to import than TAB completion may take
    from rich.console import Console
    from rich.text import Text

# Control and format characters (escapes, reversed writing), halves of characters, other line ends.
OBEYED = {"Cc", "Cf", "Cs", "Zl", "Zp"}


def printable(text: str) -> str:
    """With what a terminal would obey spelled out: `\\x1b`. Line feeds and tabs stay."""
    if text.isprintable():
        return text
    return "".join(
        sign.encode("unicode_escape").decode()
        if unicodedata.category(sign) in OBEYED and sign not in "\n\t"
        else sign
        for sign in text
    )


def echo(text: str, *, err: bool = False, nl: bool = True) -> None:
    click.echo(printable(text), err=err and not in_notebook(), nl=nl)


def echo_json(values: Any) -> None:
    import json  # 2 ms of every command's start

    click.echo(json.dumps(values, indent=1))


def say(message: str) -> None:
    """Show what is no result, on standard error; not in a notebook, which shows that as errors."""
    if in_notebook():
        click.echo(printable(message))
    else:
        click.secho(printable(message), fg="yellow", err=True)


def in_notebook() -> bool:
    """Whether this process is the kernel of a notebook."""
    ipython = sys.modules.get("IPython")
    return ipython is not None and hasattr(ipython.get_ipython(), "kernel")


def confirm(question: str) -> bool:
    """Whether the user at the terminal agrees; False without a terminal."""
    return sys.stdin.isatty() and click.confirm(printable(question), err=True)


def styled(text: str, style: str) -> "Text":
    """For a console or a table; a style is given beside the text, never in it."""
    from rich.text import Text

    return Text(printable(text), style)


def console(
    *,
    stderr: bool = False,
    soft_wrap: bool = False,
    width: int | None = None,
    file: IO[str] | None = None,
) -> "Console":
    """A console that shows text as it is; every console is made here. In a notebook it writes text."""
    from rich.console import Console

    class PrintableConsole(Console):
        def render_str(self, text: str, **options: Any) -> "Text":
            return super().render_str(printable(text), **options)

    return PrintableConsole(
        file=file,
        stderr=stderr,
        soft_wrap=soft_wrap,
        width=width,
        force_jupyter=False,  # whose progress bars would need ipywidgets
        force_terminal=False if file or in_notebook() else None,  # whatever FORCE_COLOR says
        highlight=False,
        markup=False,
        emoji=False,
    )


def show_table(
    titles: Sequence[str],
    rows: Iterable[Iterable["str | Text"]],
    *,
    right: Collection[str] = (),
    pipe_width: int = 100_000,
) -> None:
    """Columns under their titles; those of `right` flush right.

    On a pipe a line is as long as it needs to be, up to `pipe_width`.
    """
    out = console()
    if not out.is_terminal:
        out.width = pipe_width
    click.echo(_table_on(out, titles, rows, right))


def table_text(
    titles: Sequence[str], rows: Iterable[Iterable[str]], *, right: Collection[str] = ()
) -> str:
    """The same as text, whatever the standard output is."""
    return _table_on(console(width=100_000, file=io.StringIO()), titles, rows, right)


def _table_on(
    out: "Console",
    titles: Sequence[str],
    rows: Iterable[Iterable["str | Text"]],
    right: Collection[str],
) -> str:
    from rich.table import Table

    table = Table(box=None, header_style="bold", pad_edge=False)
    for title in titles:
        table.add_column(title, justify="right" if title in right else "left", overflow="fold")
    for row in rows:
        table.add_row(*row)
    with out.capture() as captured:
        out.print(table)
    return "\n".join(line.rstrip() for line in captured.get().splitlines())
