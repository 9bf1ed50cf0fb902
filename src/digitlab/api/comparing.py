"""Runs side by side, and which of their differences are real: what `digitlab compare` says, as data."""

import io
import json
from typing import TYPE_CHECKING, Any

from digitlab.api.reading import store_uri
from digitlab.api.recorded import Run, Runs
from digitlab.api.settling import reading_store
from digitlab.api.sweeping import Sweep
from digitlab.errors import UsageError
from digitlab.results.compare import presenting, wording
from digitlab.results.compare.compare import Comparison as Compared
from digitlab.results.compare.compare import compare as compare_runs
from digitlab.sweep.lookup import choose
from digitlab.tracking.stored_run import Chosen

if TYPE_CHECKING:
    import pandas as pd

    from digitlab.tracking.store import RunStore

Reference = str | Run | Runs | Sweep


class Comparison:
    """Rows, best first, and how each differs from the reference; printed as `digitlab compare` does.

    Attributes:
        metric: by which the rows are sorted.
        sentences: what the tests say of each row, in words.
        notes: what was left out, and what the tests do not say.
    """

    def __init__(self, compared: Compared) -> None:
        self._compared = compared
        self.metric = compared.metric
        self.sentences = wording.sentences(compared)
        self.notes = wording.notes(compared)

    def to_pandas(self) -> "pd.DataFrame":
        """One row a row: `place`, the knobs that differ by their paths, `n`, `seeds`, `runs`; each
        metric and its `± 95 %`; `difference` of test accuracy to the reference (a share, not points),
        `low` and `high` of its 95 % interval, `p`, `corrected p` (Holm), `test`.
        """
        import pandas as pd

        return pd.read_csv(io.StringIO(presenting.as_csv(self._compared)))

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain values: what `digitlab compare --json` prints."""
        values: dict[str, Any] = json.loads(presenting.as_json(self._compared, None))
        return values

    def __repr__(self) -> str:
        return presenting.as_text(self._compared)

    def _repr_markdown_(self) -> str:
        return presenting.as_markdown(self._compared)


def compare(
    *references: Reference,
    sort: str | None = None,
    against: Run | str | None = None,
    tracking_uri: str | None = None,
) -> Comparison:
    """Compare runs: what differs, what came out, and which differences are real.

    Runs that are given one by one have a row each, and are tested on the test images that both were
    asked (McNemar). Of a sweep, a study or a `Runs`, runs that differ in their seed only share a row,
    and are tested over seeds (t-tests).

    Args:
        references: a `Run`, a `Sweep`, a `Runs`, the id of a run or a sweep, or the name of a study.
        sort: `validation/accuracy` (the default), `test/accuracy`, `validation/loss`, `test/loss`.
        against: a run, to whose row all others are compared; None: the best row.
        tracking_uri: the store; None: that of the first object given, or what conf/ says.

    Raises:
        UsageError: one is unknown, or nothing of it has FINISHED. TrackingError: the store does not
            answer.
    """
    if not references:
        raise UsageError("compare takes runs, sweeps or studies, got none")
    store = reading_store(tracking_uri or _uri_of(references))
    chosen = [_chosen(store, reference) for reference in dict.fromkeys(references)]
    reference = _chosen(store, against) if against else None
    return Comparison(compare_runs(store, chosen, sort=sort, against=reference))


def _uri_of(references: tuple[Reference, ...]) -> str:
    for reference in references:
        match reference:
            case Run():
                return reference.tracking_uri
            case Sweep(runs=[first, *_]):
                return first.tracking_uri
            case Runs() if reference:
                return reference[0].tracking_uri
    return store_uri(None)


def _chosen(store: "RunStore", reference: Reference) -> Chosen:
    match reference:
        case Run() | Sweep():
            return choose(store, reference.id)
        case Runs():
            runs = tuple(run.stored for run in reversed(reference))  # the oldest first, as a study's
            return Chosen(kind="study", name="runs", runs=runs, asked=f"{len(runs)} runs")
        case _:
            return choose(store, reference)
