"""A record run again: read, what has changed since said, run in a fresh process, judged.

The one place where the parts of this room meet.
"""

import contextlib
import dataclasses
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from digitlab.config.components import lookup
from digitlab.config.schema import Config
from digitlab.errors import ConfigError, DataError, TrackingError, UsageError
from digitlab.reproduction.archive import Recorded
from digitlab.reproduction.child import Child
from digitlab.reproduction.demands import excess
from digitlab.reproduction.presenting import (
    how_to_weigh,
    missing_data,
    say_what_changed,
    say_where_data_lay,
)
from digitlab.reproduction.reading import read
from digitlab.reproduction.recorded_code import recorded_code
from digitlab.reproduction.verdict import Cannot, Verdict, judge
from digitlab.runs import document as documents
from digitlab.runs.document import Document, RefusedDocument
from digitlab.runs.provenance import CHECKOUT, command_line
from digitlab.text.terminal import confirm, say
from digitlab.tracking.delivery import bounded_store
from digitlab.tracking.names import REPRODUCES_TAG, VARIES_TAG, VERDICT_TAG
from digitlab.training.arithmetic import (
    PORTABLE,
    PRODUCT,
    PRODUCT_BEFORE,
    PRODUCT_VARIABLE,
    VARIABLES,
    Arithmetic,
)

# Knobs that name places on this machine, and change nothing of the run.
PLACES = {"data.root", "data.path"}


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


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Reproduction:
    """What came of it. verdict: None of a variation, by `changes`, on which there is none.

    recorded: the run that was repeated; origin: the same in words. repeated: the new run; None where
    nothing was run.
    """

    recorded: str
    origin: str
    verdict: Verdict | None
    repeated: str | None
    changes: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, slots=True)
class Repeated:
    document: Document
    run_id: str | None
    record_id: str


def reproduce(reference: str, uri: str, options: Options) -> Reproduction:
    """Run a recorded run again and judge it. What is missing is a verdict, too.

    reference: a run id (or its start), the id of a run folder on this disk, the file of an archive, or
    a bare record.json.

    Raises:
        UsageError: there is no such run or file, or the options do not fit it.
    """
    run_id, new_run = reference, None
    try:
        recorded = read(reference, uri)
        run_id = recorded.run_id
        changes = _given(options.overrides, recorded.document)
        if "tracking.uri" in changes:
            raise UsageError(
                "the store of a reproduction is chosen with --tracking-uri URI, not tracking.uri="
            )
        if changes.keys() - PLACES:
            return _vary(recorded, uri, options, changes)
        if recorded.document.trace is None or not recorded.document.trace.weights:
            raise Cannot("it has not finished: `digitlab resume` may finish it")
        repeated = _repeat(recorded, uri, options, changes)
        new_run = repeated.run_id or repeated.record_id
        verdict = judge(recorded.document, repeated.document)
        if verdict.kind == "DIFFERENT":
            verdict.details.append(how_to_weigh(recorded, repeated.run_id))
        if repeated.run_id:
            with contextlib.suppress(TrackingError):
                bounded_store(uri).set_tag(repeated.run_id, VERDICT_TAG, verdict.kind)
    except RefusedDocument as error:
        verdict = Verdict(kind="CANNOT", cause="its record is refused", details=error.problems)
    except Cannot as error:
        verdict = Verdict(kind="CANNOT", cause=str(error))
    return Reproduction(recorded=run_id, origin=f"run {run_id}", verdict=verdict, repeated=new_run)


def _given(overrides: Sequence[str], document: Document) -> dict[str, Any]:
    """Knobs by path."""
    if not overrides:
        return {}
    from digitlab.config.given_config import knob_values

    return knob_values(overrides, document.config)


def _vary(recorded: Recorded, uri: str, options: Options, changes: Mapping[str, Any]) -> Reproduction:
    """Run it with other knobs: nothing to judge, but linked."""
    repeated = _repeat(recorded, uri, options, changes)
    return Reproduction(
        recorded=recorded.run_id,
        origin=recorded.origin,
        verdict=None,
        repeated=repeated.run_id or repeated.record_id,
        changes=changes,
    )


def _repeat(recorded: Recorded, uri: str, options: Options, given: Mapping[str, Any]) -> Repeated:
    """Run it in a fresh process, after saying what has changed since. given: knobs by the user."""
    document, is_variation = recorded.document, bool(given.keys() - PLACES)
    chosen = {"threads": options.threads, "arithmetic": options.arithmetic}
    changes = {"device": document.device, **given}
    changes |= {knob: value for knob, value in chosen.items() if value is not None}
    if "data.path" not in given and (lay := missing_data(document)):
        raise Cannot(f"its data lay in {lay}, which is not here: data.path=PATH names another place")
    if options.code == "today":
        config = _checked_config(document, changes)
        try:
            demand = excess(config, None if "epochs" in given else document.trace)
        except DataError as error:
            raise Cannot(" ".join(str(error).splitlines())) from None
        _ask_first(demand, options)
    if "data.root" not in given:
        say_where_data_lay(document)
    request = {
        "document": documents.to_plain(document),
        "changes": changes,
        "tags": {VARIES_TAG if is_variation else REPRODUCES_TAG: recorded.run_id},
        "tracking_uri": uri,
        "command": command_line(),
    }
    arithmetic = changes.get("arithmetic", document.config.get("arithmetic"))
    with (
        _code_folder(recorded, options) as folder,
        Child(folder, _environment(document, arithmetic)) as child,
    ):
        child.ask(request)
        described = child.answer("described")
        if not is_variation:
            say_what_changed(recorded, _received(described))
        child.go()
        ended = child.answer("ended")
    return Repeated(_received(ended), ended["run_id"], ended["record_id"])


def _received(message: Mapping[str, Any]) -> Document:
    return documents.parse(json.dumps(message["document"]).encode())


def _checked_config(document: Document, changes: Mapping[str, Any]) -> Config:
    for group, source in document.components.items():
        if source.name not in lookup.everything().components.get(group, {}):
            raise Cannot(
                f"its {group} {source.name} is not registered in this environment: it was of "
                f"{source.distribution} {source.version}, in {', '.join(source.files)}: "
                + lookup.why_missing(group)
            )
    try:
        return document.checked_config(changes)
    except ConfigError as error:
        raise Cannot(
            "the recorded configuration does not fit today's schema "
            f"({'; '.join(error.problems[:3])}): try --code recorded"
        ) from None


def _ask_first(demand: str | None, options: Options) -> None:
    """A record may come from an untrusted source. Raises Cannot if the user declines."""
    if demand and not options.yes and not confirm(f"{demand}; run it all the same?"):
        raise Cannot(f"{demand}; --yes runs it all the same")


@contextlib.contextmanager
def _code_folder(recorded: Recorded, options: Options) -> Iterator[Path | None]:
    """The checkout to run; None: this environment's own package."""
    if options.code == "today":
        yield CHECKOUT
        return
    with recorded_code(recorded) as folder:
        commit = recorded.document.code.commit[:12]
        with_patch = " with the recorded patch" if recorded.patch else ""
        say(f"running the code of commit {commit}{with_patch}")
        yield folder


def _environment(document: Document, arithmetic: object) -> dict[str, str]:
    """This process's own, with the recorded product and variables of arithmetic,
    or the variables of the one asked for."""
    inherited = {name: value for name, value in os.environ.items() if name not in VARIABLES}
    inherited |= _asking_for(document.arithmetic.get(PRODUCT, PRODUCT_BEFORE))
    if arithmetic == "portable":
        return {**inherited, **PORTABLE}
    if document.config.get("arithmetic") == "portable":
        return inherited
    recorded = {name: document.arithmetic.get(name, "") for name in VARIABLES}
    return {**inherited, **{name: value for name, value in recorded.items() if value}}


def _asking_for(product: str) -> dict[str, str]:
    """One of a later digitlab cannot be asked for: the verdict then names the difference."""
    if product == PRODUCT_BEFORE:
        return {PRODUCT_VARIABLE: product}
    from digitlab.models import products  # loads torch

    return {PRODUCT_VARIABLE: product if product in products.ALL else ""}
