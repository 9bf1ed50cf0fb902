"""A bar in the output of a notebook's cell, in plain HTML: widgets are not shown everywhere."""

import html
import sys
from typing import Any

from digitlab.text.terminal import in_notebook, printable
from digitlab.text.throttle import Throttle

REDRAW_EVERY_SECONDS = 0.2


class CellBar:
    """How far something is, in the cell that runs. Draws nothing outside a notebook."""

    def __init__(self) -> None:
        self.is_shown = in_notebook()
        self._throttle = Throttle(REDRAW_EVERY_SECONDS)
        self._handle: Any = None

    def show(self, done: int, total: int, text: str) -> None:
        """At most five times a second; the end is for `end`."""
        if self.is_shown and self._throttle.passes():
            bar = f'<progress max="{total}" value="{done}" style="vertical-align: middle"></progress>'
            self._draw(f"{bar} {_escaped(text)}", f"{done}/{total}  {text}")

    def end(self, text: str) -> None:
        """What stays in the cell, in place of the bar; nothing of one that was never drawn."""
        if self.is_shown and (text or self._handle):
            self._draw(_escaped(text), text)

    def _draw(self, markup: str, text: str) -> None:
        shown = {"text/html": markup, "text/plain": printable(text)}
        if self._handle:
            self._handle.update(shown, raw=True)
        else:
            display = sys.modules["IPython"].display.display
            self._handle = display(shown, raw=True, display_id=True)


def _escaped(text: str) -> str:
    """HTML that shows the text, its spaces too."""
    return f'<span style="white-space: pre-wrap">{html.escape(printable(text))}</span>'
