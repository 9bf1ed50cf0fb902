"""What each second of a sweep is spent on: `python -m tests.benchmarks.peers.profile [TRIALS]`.

py-spy looks at all processes of one sweep of logistic regressions (default: 128 trials) so many times a
second; a sample counts where a thread runs or waits for the disk. Beside it, what the machine's matrix
products alone would take. Writes profile.json beside results.json.
"""

import json
import re
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from tests.benchmarks.peers import environments, summary
from tests.benchmarks.peers.__main__ import OUT
from tests.benchmarks.peers.contestants import project_with_data, sweep_line
from tests.benchmarks.processes import DIGITLAB, adopt_orphans, check_finished, measure

A_SECOND = 50  # samples
TRIALS = 128
CORES = 2  # workers of the sweep
# The multiplications and additions of a trial: forward and backward, 5 epochs of 55,000 images.
OPERATIONS = 5 * 55_000 * 2 * 2 * 784 * 10

# A frame is `function (path/file.py:line)`. A stack with an IMPORTS or EVALUATION frame anywhere is of
# that kind; of the others the innermost frame that matches says the kind.
IMPORTS = re.compile(r"<frozen importlib|ctypes/__init__")
EVALUATION = re.compile(r"^(\w+\.)?(evaluate|predict(_many)?|score\w*) \(.*digitlab/(training|models)/")
PRODUCTS = r"^(\w*products?\w*|\w*\.forward) \(.*digitlab/(training|models)/|digitlab/models/products"
DELIVERY = r"\((mlflow|sqlalchemy|alembic)/|digitlab/tracking/(delivery|store|upload|connection)"
KINDS = {
    "waiting": r"^(\w+\.)?(_?recv|wait|select|poll|acquire|sleep|_try_wait|waitpid) \(",
    "products": PRODUCTS,
    "delivery to MLflow": DELIVERY,
    "recording on disk": r"\(pyarrow/|digitlab/(tracking|text/files|runs)|safetensors/|matplotlib/",
    "the rest of the steps": r"digitlab/(training|models|data)/",
    "composing and planning": r"digitlab/(config|sweep|cli)/|\((hydra|omegaconf|antlr4)/",
}
REST = "other"


def main() -> None:
    trials = int(sys.argv[1]) if len(sys.argv) > 1 else TRIALS
    adopt_orphans()
    stacks, wall = sampled(trials)
    profile = {
        "trials": trials,
        "wall": wall,
        "cores": CORES,
        "seconds": seconds_by_kind(stacks, wall),
        "gflops_a_core": measured_peak(),
        "operations": OPERATIONS,
    }
    OUT.mkdir(parents=True, exist_ok=True)
    (OUT / "profile.json").write_text(json.dumps(profile, indent=1) + "\n")
    print(summary.profile_table(profile), summary.limit(profile), sep="\n\n")


def sampled(trials: int) -> tuple[list[str], float]:
    """py-spy's lines of a sweep, `frame;frame;... count`, and the wall seconds of the sweep."""
    py_spy = environments.build("profile").parent / "py-spy"
    with project_with_data() as environment, tempfile.TemporaryDirectory() as scratch:
        raw = Path(scratch) / "stacks"
        options = ["--subprocesses", "--nonblocking", "--format", "raw", "--rate", str(A_SECOND)]
        line = [str(py_spy), "record", *options, "--output", str(raw), "--"]
        cost = measure([*line, *DIGITLAB, "sweep", *sweep_line(trials)], environment)
        check_finished(environment, trials)
        return raw.read_text().splitlines(), cost.wall


def seconds_by_kind(lines: Iterable[str], wall: float) -> dict[str, float]:
    """Seconds of all cores, the largest first; what no process used is waiting.

    A thread that waits for a core is sampled as one that runs: all are shortened to what the cores had.
    """
    counts: Counter[str] = Counter()
    for line in lines:
        stack, _, count = line.rpartition(" ")
        counts[kind_of(stack.split(";"))] += int(count)
    del counts["waiting"]
    sampled_seconds = sum(counts.values()) / A_SECOND
    factor = min(1.0, CORES * wall / max(sampled_seconds, 1e-9)) / A_SECOND
    seconds = {kind: count * factor for kind, count in counts.most_common()}
    return {**seconds, "waiting": max(0.0, CORES * wall - sampled_seconds)}


def kind_of(stack: Sequence[str]) -> str:
    """The kind of work of a stack, whose innermost frame stands last."""
    for kind, pattern in (("imports", IMPORTS), ("evaluation", EVALUATION)):
        if any(pattern.search(frame) for frame in stack):
            return kind
    for frame in reversed(stack):
        for kind, known in KINDS.items():
            if re.search(known, frame):
                return kind
    return REST


def measured_peak() -> float:
    """GFLOP/s of the best of some large products in float32, on one thread."""
    import torch

    torch.set_num_threads(1)
    side, best = 2048, 0.0
    left, right = torch.rand(side, side), torch.rand(side, side)
    for _ in range(5):
        started = time.perf_counter()
        left.mm(right)
        best = max(best, 2 * side**3 / (time.perf_counter() - started) / 1e9)
    return best


if __name__ == "__main__":
    main()
