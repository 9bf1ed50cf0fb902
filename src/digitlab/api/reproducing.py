"""A recorded run, or a configuration alone, run again: what `digitlab reproduce` does."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from digitlab.api.training import train_config
from digitlab.config.checking import set_leaf, to_config, to_dict
from digitlab.config.given_config import PLACES, read_config
from digitlab.config.schema import Config
from digitlab.errors import UsageError
from digitlab.reproduction.demands import excess
from digitlab.reproduction.untraced import verdict_without_trace
from digitlab.reproduction.verdict import Verdict
from digitlab.runs.document import differing_knobs
from digitlab.text.terminal import confirm, say

if TYPE_CHECKING:
    from digitlab.runs.experiment import Outcome
    from digitlab.runs.interrupts import Interrupts


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Untraced:
    """A configuration alone that was trained. verdict: None of a variation, on which there is none."""

    config: Config
    outcome: "Outcome"
    verdict: Verdict | None


def reproduce_config(
    file: Path,
    overrides: Sequence[str],
    *,
    chosen: Mapping[str, object],
    yes: bool = False,
    interrupts: "Interrupts",
) -> Untraced:
    """Train exactly the configuration in a file, of which nothing can be judged.

    overrides: knobs that make it a variation, apart from PLACES. chosen: what options set, by knob;
    None: as in the file. yes: run it, whatever it asks of this machine.

    Raises:
        UsageError: the file is no configuration, or is damaged.
    """
    values = to_dict(read_config(file, overrides, say))
    if values["tracking"]["uri"] is not None:
        raise UsageError(
            "the store of a reproduction is chosen with --tracking-uri URI, not tracking.uri="
        )
    recorded = to_dict(read_config(file, (), _silent))
    is_variation = any(path not in PLACES for path in differing_knobs(recorded, values))
    for knob, value in chosen.items():
        if value is not None:
            set_leaf(values, knob, value)
    config = to_config(values)
    demand = excess(config, None)
    if demand and not yes and not confirm(f"{demand}; run it all the same?"):
        raise UsageError(f"{file}: {demand}; --yes runs it all the same")
    say(f"{file} holds knobs alone, no trace of a run: it is trained, and there is nothing to judge by")
    outcome = train_config(config, interrupts)
    verdict = None if is_variation else verdict_without_trace(file, outcome.document)
    return Untraced(config=config, outcome=outcome, verdict=verdict)


def _silent(_: str) -> None:
    """What is said of the file was said when it was read for the run."""
