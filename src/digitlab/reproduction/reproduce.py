"""`digitlab reproduce` and `export`: read a record, say what has changed, run it again, judge.

The one place where the parts of this package meet.
"""

import contextlib
import dataclasses
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from digitlab.config import project
from digitlab.config.checking import as_param
from digitlab.config.schema import Config
from digitlab.errors import ConfigError, TrackingError
from digitlab.reproduction.archive import Recorded
from digitlab.reproduction.changes import input_changes, promises_identity
from digitlab.reproduction.child import Cannot, Child
from digitlab.reproduction.demands import excess
from digitlab.reproduction.reading import check_tags, read
from digitlab.reproduction.recorded_code import NotAvailable, recorded_code
from digitlab.reproduction.verdict import Verdict, judge
from digitlab.results.compare.differences import arithmetic_differences
from digitlab.runs import document as documents
from digitlab.runs.document import Document, RefusedDocument
from digitlab.runs.provenance import CHECKOUT, command_line
from digitlab.text.terminal import confirm, console, echo, say, styled
from digitlab.tracking.delivery import open_store
from digitlab.tracking.names import REPRODUCES_TAG, VARIES_TAG, VERDICT_TAG
from digitlab.training.arithmetic import PORTABLE, VARIABLES, Arithmetic

PLACES = {"data.root"}  # knobs that say where things lie here, and change nothing of the run


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """overrides: knobs that make it a variation, apart from PLACES. code: `today` or `recorded`.

    yes: run it, whatever it asks of this machine.
    """

    overrides: Sequence[str] = ()
    threads: int | None = None
    arithmetic: Arithmetic | None = None
    code: str = "today"
    yes: bool = False
    as_json: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class Repeated:
    document: Document
    run_id: str | None
    record_id: str


def reproduce(wanted: str, uri: str, options: Options) -> int:
    """Run a recorded run again and print the verdict; returns its exit code.

    wanted: a run id (or its start), a record waiting on this disk, the file of an archive, or a bare
    record.json.
    """
    run_id, new_run = wanted, None
    try:
        recorded = read(wanted, uri)
        check_tags(recorded, uri)
        run_id = recorded.run_id
        changes = _given(options.overrides, recorded.document)
        if changes.keys() - PLACES:
            return _vary(recorded, uri, options, changes)
        if recorded.document.trace is None or not recorded.document.trace.weights:
            raise Cannot("it has not finished: `digitlab resume` may finish it")
        repeated = _repeat(recorded, uri, options, changes)
        new_run = repeated.run_id or repeated.record_id
        verdict = judge(recorded.document, repeated.document)
        if verdict.kind == "DIFFERENT":
            verdict.details.append(_how_to_weigh(recorded, repeated))
        if repeated.run_id:
            with contextlib.suppress(TrackingError):
                open_store(uri).set_tag(repeated.run_id, VERDICT_TAG, verdict.kind)
    except RefusedDocument as error:
        verdict = Verdict(kind="CANNOT", cause="its record is refused", details=error.problems)
    except (Cannot, NotAvailable) as error:
        verdict = Verdict(kind="CANNOT", cause=str(error))
    show_verdict(verdict, run_id, new_run, as_json=options.as_json)
    return verdict.exit_code


def _how_to_weigh(recorded: Recorded, repeated: Repeated) -> str:
    """What says whether a difference matters, which one pair of runs cannot."""
    over_seeds = (
        "does it matter? One pair of runs cannot say: `digitlab sweep ... seed=range(5)` before and "
        "after the change, then `digitlab compare OLD_SWEEP NEW_SWEEP`"
    )
    if Path(recorded.origin).is_file() or not repeated.run_id:
        return over_seeds
    pair = f"digitlab compare {recorded.run_id[:8]} {repeated.run_id[:8]}"
    return f"{over_seeds}; `{pair}` tests these two models on the same images"


def _given(overrides: Sequence[str], document: Document) -> dict[str, Any]:
    """Knobs by path."""
    if not overrides:
        return {}
    from digitlab.config.given_config import knob_values

    return knob_values(overrides, document.config)


def _vary(recorded: Recorded, uri: str, options: Options, changes: Mapping[str, Any]) -> int:
    """The recorded run with other knobs: nothing to judge, but linked."""
    repeated = _repeat(recorded, uri, options, changes)
    new_run = repeated.run_id or repeated.record_id
    told = ", ".join(f"{path}={as_param(value)}" for path, value in changes.items())
    if options.as_json:
        echo(json.dumps({"varies": recorded.run_id, "run": new_run, "changes": changes}, indent=1))
    else:
        echo(f"run {new_run[:8]} varies {recorded.origin} ({told}): no verdict on another run")
    return 0


def _repeat(recorded: Recorded, uri: str, options: Options, given: Mapping[str, Any]) -> Repeated:
    """Run it in a fresh process, after saying what has changed since. given: knobs by the user."""
    document, is_variation = recorded.document, bool(given.keys() - PLACES)
    changes = {"device": document.device, **given}
    if options.threads is not None:
        changes["threads"] = options.threads
    if options.arithmetic is not None:
        changes["arithmetic"] = options.arithmetic
    if options.code == "today":
        config = _checked_config(document, changes)
        _ask_first(excess(config, None if "epochs" in given else document.trace), options)
    if "data.root" not in given:
        _say_where_data_lay(document)
    link = {VARIES_TAG if is_variation else REPRODUCES_TAG: recorded.run_id}
    with _code_folder(recorded, options) as folder:
        kind = changes.get("arithmetic", document.config.get("arithmetic"))
        with Child(folder, _environment(document, kind)) as child:
            child.ask(
                {
                    "document": dataclasses.asdict(document),
                    "changes": changes,
                    "tags": link,
                    "tracking_uri": uri,
                    "command": command_line(),
                }
            )
            described = child.hear("described")
            today = documents.parse(json.dumps(described["document"]).encode())
            if not is_variation:
                _say_what_changed(recorded, today)
            child.go()
            ended = child.hear("ended")
    result = documents.parse(json.dumps(ended["document"]).encode())
    return Repeated(result, ended["run_id"], ended["record_id"])


def _checked_config(document: Document, changes: Mapping[str, Any]) -> Config:
    try:
        return document.checked_config(changes)
    except ConfigError as error:
        raise Cannot(
            "the recorded configuration does not fit today's schema "
            f"({'; '.join(error.problems[:3])}): try --code recorded"
        ) from None


def _ask_first(demand: str | None, options: Options) -> None:
    """A record may come from anybody, and ask for anything. Raises Cannot without leave."""
    if demand is None or options.yes:
        return
    if not confirm(f"{demand}; run it all the same?"):
        raise Cannot(f"{demand}; --yes runs it all the same")


def _say_where_data_lay(document: Document) -> None:
    """A record says nothing about places here; its user may."""
    data = document.config.get("data")
    root = data.get("root") if isinstance(data, dict) else None
    here = project.data_root(None)
    if isinstance(root, str) and Path(root) != here:
        say(f"  its data lay in {root}, and are looked for in {here}: data.root= names another")


@contextlib.contextmanager
def _code_folder(recorded: Recorded, options: Options) -> Iterator[Path]:
    if options.code == "today":
        yield CHECKOUT
        return
    with recorded_code(recorded) as folder:
        commit = recorded.document.code.commit[:12]
        with_patch = " with the recorded patch" if recorded.patch else ""
        say(f"running the code of commit {commit}{with_patch}")
        yield folder


def _environment(document: Document, kind: object) -> dict[str, str]:
    """Ours with the recorded variables of arithmetic, or those of the arithmetic that is asked for."""
    recorded = {name: document.arithmetic.get(name, "") for name in VARIABLES}
    if kind == "portable":
        wanted = PORTABLE
    elif document.config.get("arithmetic") == "portable":
        wanted = {}
    else:
        wanted = {name: value for name, value in recorded.items() if value}
    inherited = {k: v for k, v in os.environ.items() if k not in VARIABLES}
    return {**inherited, **wanted}


def _say_what_changed(recorded: Recorded, today: Document) -> None:
    before = recorded.document
    changed = [*map(str, input_changes(before, today)), *arithmetic_differences(before, today)]
    versions = {**before.versions, **today.versions}
    changed += [
        f"{name} is {today.versions.get(name, 'not installed')}, was {before.versions.get(name)}"
        for name in versions
        if before.versions.get(name) != today.versions.get(name) and name not in before.arithmetic
    ]
    say(f"reproducing {recorded.origin}: {before.config['model']['name']}, seed {before.seed}")
    for text in changed:
        say(f"  changed since: {text}")
    if promises_identity(before, today):
        say("  same configuration, code, data and arithmetic: the result must be IDENTICAL")


def show_verdict(verdict: Verdict, run_id: str | None, new_run: str | None, *, as_json: bool) -> None:
    if as_json:
        values = {**dataclasses.asdict(verdict), "recorded": run_id, "repeated": new_run}
        echo(json.dumps({**values, "exit_code": verdict.exit_code}, indent=1))
        return
    colours = {"IDENTICAL": "green", "DIFFERENT": "red", "CANNOT": "red"}
    head = styled(verdict.kind, f"bold {colours.get(verdict.kind, 'yellow')}")
    console(soft_wrap=True).print(head, f": {verdict.cause}" if verdict.cause else "", sep="")
    for detail in verdict.details:
        echo(f"  {detail}")
    if new_run:
        recorded = f"recorded {run_id[:8]}, repeated" if run_id else "run"
        echo(f"  {recorded} {new_run[:8]}: digitlab show {new_run[:8]}")
