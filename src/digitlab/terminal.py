"""The terminal, on which a user's text is text: no square bracket and no colon in it is a command."""

from rich.console import Console
from rich.table import Table


def console(*, stderr: bool = False, soft_wrap: bool = False, width: int | None = None) -> Console:
    """The one way to make one. Styles are given beside the text, never in it."""
    return Console(
        stderr=stderr, soft_wrap=soft_wrap, width=width, highlight=False, markup=False, emoji=False
    )


def lines_of(table: Table, *, pipe_width: int = 100_000) -> list[str]:
    """As the terminal shows it; on a pipe a line is as long as it needs to be, up to `pipe_width`."""
    out = console()
    if not out.is_terminal:
        out.width = pipe_width
    with out.capture() as captured:
        out.print(table)
    return [line.rstrip() for line in captured.get().splitlines()]
