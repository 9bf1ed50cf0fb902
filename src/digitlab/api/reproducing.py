"""A recorded run, or a configuration alone, run again: what `digitlab reproduce` does."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from digitlab.api.composing import listed
from digitlab.api.exporting import YAML
from digitlab.api.foreground import in_foreground, torch_as_it_was
from digitlab.api.recorded import Run, find_run
from digitlab.api.settling import settle_dead_runs
from digitlab.api.training import run_of, train_config
from digitlab.config.checking import set_leaf, to_config, to_dict
from digitlab.config.given_config import PLACES, read_config
from digitlab.config.schema import Config
from digitlab.errors import UsageError
from digitlab.reproduction.demands import excess
from digitlab.reproduction.reproduce import PLACES as HERE
from digitlab.reproduction.reproduce import Options
from digitlab.reproduction.reproduce import reproduce as repeat
from digitlab.reproduction.untraced import verdict_without_trace
from digitlab.reproduction.verdict import Kind, Verdict
from digitlab.runs.document import differing_knobs
from digitlab.text.terminal import confirm, say
from digitlab.tracking.connection.location import resolve_uri
from digitlab.training.arithmetic import Arithmetic

if TYPE_CHECKING:
    from digitlab.runs.experiment import Outcome
    from digitlab.runs.interrupts import Interrupts


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Untraced:
    """A configuration alone that was trained. verdict: None of a variation, by `changes`."""

    config: Config
    outcome: "Outcome"
    verdict: Verdict | None
    changes: Mapping[str, object]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Reproduction:
    """What came of running something again.

    verdict: `IDENTICAL` (every bit), `SAME COMPUTATION, OTHER ROUNDING`, `DIFFERENT` or `CANNOT`; None
    of a variation, on which there is none. cause: what differs first, or what is missing. details:
    more sentences. recorded: the id of the run that was repeated, or the file. run: the new run; None
    where nothing could be run.
    """

    verdict: Kind | None
    cause: str
    details: tuple[str, ...]
    recorded: str
    run: Run | None

    @property
    def is_identical(self) -> bool:
        return self.verdict == "IDENTICAL"

    def __repr__(self) -> str:
        head = self.verdict or "a variation, on which there is no verdict"
        lines = [f"{head}: {self.cause}" if self.cause else head, *self.details]
        lines.append(f"recorded: {self.recorded}")
        return "\n  ".join([*lines, f"repeated: {self.run!r}"] if self.run else lines)


def reproduce(
    run: Run | str | Path,
    overrides: Sequence[str] = (),
    *,
    threads: int | None = None,
    arithmetic: Arithmetic | None = None,
    code: Literal["today", "recorded"] = "today",
    yes: bool = False,
    tracking_uri: str | None = None,
) -> Reproduction:
    """Run a recorded run again, from its record alone, and say whether the result is the same.

    A recorded run is repeated in a fresh process; a configuration alone (a .yaml file) is trained in
    this one, and holds nothing to judge by: CANNOT.

    Args:
        run: a `Run`, a run's id (which may be shortened), an archive of `digitlab export`, a
            record.json or a configuration.
        overrides: knobs that make it a variation. `data.root=` only says where the data lie here.
        threads, arithmetic: other ones than recorded.
        code: `recorded`: the recorded commit and patch instead of today's code. That is code from the
            record: for records that you trust.
        yes: run it though it asks for more than its trace shows.
        tracking_uri: the store; None: the run's own, or $MLFLOW_TRACKING_URI, or that of the project.

    Raises:
        UsageError: there is no such run or file. TrackingError: the store does not answer.
        KeyboardInterrupt: Ctrl-C; the repetition is recorded as KILLED.
    """
    uri = resolve_uri(tracking_uri or (run.tracking_uri if isinstance(run, Run) else None))
    reference = run.id if isinstance(run, Run) else str(run)
    if Path(reference).suffix in YAML:
        if code == "recorded":
            raise UsageError(f"{reference} names no commit: code='recorded' needs a run or its record")
        chosen = {"threads": threads, "arithmetic": arithmetic, "tracking.uri": tracking_uri}
        return _reproduce_file(Path(reference), listed(overrides), chosen, yes=yes)
    settle_dead_runs()
    asked = Options(
        overrides=listed(overrides), threads=threads, arithmetic=arithmetic, code=code, yes=yes
    )
    done = repeat(reference, uri, asked)
    new = find_run(uri, done.repeated) if done.repeated else None
    return _told(done.verdict, recorded=done.recorded, run=new)


def _reproduce_file(
    file: Path, overrides: Sequence[str], chosen: Mapping[str, object], *, yes: bool
) -> Reproduction:
    def work(interrupts: "Interrupts") -> Reproduction:
        with torch_as_it_was():
            done = reproduce_config(file, overrides, chosen=chosen, yes=yes, interrupts=interrupts)
        new = run_of(done.outcome, done.config)
        return _told(done.verdict, recorded=str(file), run=new)

    return in_foreground(work)


def _told(verdict: Verdict | None, *, recorded: str, run: Run | None) -> Reproduction:
    return Reproduction(
        verdict=verdict.kind if verdict else None,
        cause=verdict.cause if verdict else "",
        details=tuple(verdict.details) if verdict else (),
        recorded=recorded,
        run=run,
    )


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
    differing = differing_knobs(recorded, values)
    changes = {p: now for p, (_, now) in differing.items() if p not in {*PLACES, *HERE}}
    for knob, value in chosen.items():
        if value is not None:
            set_leaf(values, knob, value)
    config = to_config(values)
    demand = excess(config, None)
    if demand and not yes and not confirm(f"{demand}; run it all the same?"):
        raise UsageError(f"{file}: {demand}; --yes runs it all the same")
    say(f"{file} holds knobs alone, no trace of a run: it is trained, and there is nothing to judge by")
    outcome = train_config(config, interrupts)
    verdict = None if changes else verdict_without_trace(file, outcome.document)
    return Untraced(config=config, outcome=outcome, verdict=verdict, changes=changes)


def _silent(_: str) -> None:
    """What is said of the file was said when it was read for the run."""
