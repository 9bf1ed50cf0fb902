"""What is left open where a configuration comes alone: without a trace, code, data or versions."""

from collections.abc import Iterator
from pathlib import Path

from digitlab.reproduction.verdict import Verdict
from digitlab.runs.document import Document
from digitlab.runs.trace import to_floats

SHOWN_DIGITS = 12  # of a digest


def verdict_without_trace(file: Path, repeated: Document) -> Verdict:
    """CANNOT, whatever the run gave, with what could not be checked and what it was here.

    repeated: of the run that was made from the file; it has ended.
    """
    return Verdict(
        kind="CANNOT",
        cause=f"{file} holds no trace of a run to compare with: a configuration alone was trained",
        details=[
            *(f"not checked: {line}" for line in _unchecked(repeated)),
            "to judge: digitlab reproduce with the run's id, its record.json, or an archive of it",
        ],
    )


def _unchecked(repeated: Document) -> Iterator[str]:
    """What decides a result and is not in a configuration, with what it was in this run."""
    code, arithmetic = repeated.code, repeated.arithmetic
    changes = " and uncommitted changes" if code.dirty == "true" else ""
    yield f"code (here: digitlab {code.version}, commit {code.commit[:SHOWN_DIGITS]}{changes})"
    digests = (f"{name} {digest[:SHOWN_DIGITS]}" for name, digest in repeated.data.items())
    yield f"data and split (here: {', '.join(digests)})"
    yield (
        f"arithmetic (here: {repeated.device}, {repeated.threads} threads, "
        f"{arithmetic['cpu_capability']}, {arithmetic['cpu']})"
    )
    yield f"versions (here: {', '.join(f'{name} {v}' for name, v in repeated.versions.items())})"
    if repeated.trace and repeated.trace.weights:
        accuracy = 100 * to_floats(repeated.trace.test)["accuracy"]
        weights = repeated.trace.weights[:SHOWN_DIGITS]
        yield f"result (here: test accuracy {accuracy:.2f} %, weights {weights})"
