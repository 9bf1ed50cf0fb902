"""Versions of what is kept in files: earlier values brought to the latest form, later ones refused.

A format is a chain of pure functions, each from one version to the next. Must not know what they say.
"""

import dataclasses
import reprlib
from collections.abc import Callable, Mapping
from typing import Any

from digitlab import __version__
from digitlab.errors import DigitlabError

KEY = "format"

Values = dict[str, Any]
Upgrade = Callable[[Values], Values]


class LaterFormat(DigitlabError):  # noqa: N818  (what is the matter with it)
    """A later digitlab wrote it: nothing is wrong with it, so nothing must replace it."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """upgrades: by the version that each takes, without a gap, from 1; they change no argument.

    unnumbered: the version of what names none; None if there is no such.
    """

    upgrades: Mapping[int, Upgrade] = dataclasses.field(default_factory=dict)
    unnumbered: int | None = None

    @property
    def latest(self) -> int:
        return len(self.upgrades) + 1

    def numbered(self, values: Mapping[str, Any]) -> Values:
        """Values of the latest version, to be written."""
        return {KEY: self.latest, **values}

    def version(self, values: object) -> int:
        """Raises LaterFormat, or ValueError if they are of no version."""
        if not isinstance(values, dict):
            raise ValueError("it holds no object")
        version = values.get(KEY, self.unnumbered)
        allowed = "1" if self.latest == 1 else f"1 to {self.latest}"
        refusal = f"{KEY} must be {allowed}, got {reprlib.repr(version)}"
        if type(version) is not int or version < 1:  # 1.0 and true equal 1
            raise ValueError(f"{refusal}: no digitlab wrote it")
        if version > self.latest:
            raise LaterFormat(
                f"{refusal}: another version wrote it, later than this digitlab ({__version__}): "
                "upgrade digitlab to read it"
            )
        return version

    def upgraded(self, values: object) -> Values:
        """The same in the form of the latest version. Raises as `version` does."""
        version = self.version(values)
        assert isinstance(values, dict)
        for number in range(version, self.latest):
            try:
                values = self.upgrades[number](values)
            except (LookupError, TypeError, AttributeError) as error:
                raise ValueError(f"it is not of format {number}, as it says: {error}") from None
        return values | {KEY: self.latest}
