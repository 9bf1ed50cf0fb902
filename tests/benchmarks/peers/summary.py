"""From samples to medians, increments, ratios and the text of tables. Measures nothing.

`Results` is what results.json holds; docs/performance.md shows the tables of one such file.
"""

import statistics
from collections.abc import Iterable, Sequence
from typing import Any

from tests.benchmarks.peers.contestants import ACCURACY, CNN, LOGISTIC, MANY, MEMBERS, OURS, START

Results = dict[str, Any]
FEW, MANY_TRIALS = 64, 256
ONE = {"epochs": "epoch", "iterations": "iteration", "passes": "pass"}
EPOCHS = 15  # of the one run with a target


def walls(results: Results, name: str, work: str) -> dict[int, float]:
    """The median of wall seconds at each size."""
    return _medians(results, name, work, "wall")


def _medians(results: Results, name: str, work: str, what: str) -> dict[int, float]:
    found: dict[int, list[float]] = {}
    for sample in results["samples"]:
        if (sample["name"], sample["work"]) == (name, work) and sample[what] is not None:
            found.setdefault(sample["size"], []).append(sample[what])
    return {size: statistics.median(values) for size, values in sorted(found.items())}


def names(results: Results, work: str) -> list[str]:
    """Who was measured, in the order of the run."""
    return list(dict.fromkeys(each["name"] for each in results["samples"] if each["work"] == work))


def increment(by_size: dict[int, float]) -> float | None:
    """Seconds of each further trial: from the fewest to the most, a trial; None for one size."""
    if len(by_size) < 2:
        return None
    few, many = min(by_size), max(by_size)
    return (by_size[many] - by_size[few]) / (many - few)


def at(by_size: dict[int, float], size: int) -> float | None:
    """Seconds at a size: measured, or scaled by the increment from the nearest that is smaller."""
    if size in by_size:
        return by_size[size]
    step = increment(by_size)
    if step is None:
        return None
    start = max((each for each in by_size if each < size), default=min(by_size))
    return by_size[start] + (size - start) * step


def best(values: Iterable[float | None]) -> float | None:
    return min((value for value in values if value is not None), default=None)


def ratio(theirs: float | None, ours: float | None) -> float | None:
    return None if theirs is None or not ours else theirs / ours


def tables(results: Results) -> list[str]:
    """In Markdown, those of which something was measured."""
    made = [
        logistic_table(results),
        cnn_table(results),
        accuracy_table(results),
        targets_table(results),
    ]
    return [table for table in made if table.count("\n") > 1]


def logistic_table(results: Results) -> str:
    ours = increment(walls(results, OURS, LOGISTIC))
    rows = []
    for name in names(results, LOGISTIC):
        wall = walls(results, name, LOGISTIC)
        step, cpu = increment(wall), increment(_medians(results, name, LOGISTIC, "cpu"))
        ends = [_scaled(wall, size) for size in (FEW, MANY_TRIALS)]
        numbers = [_text(step, ".3f"), _text(cpu, ".3f"), _text(ratio(60, step), ".0f")]
        rows.append([name, *ends, *numbers, _text(ratio(step, ours), ".1f", "x")])
    head = [f"{FEW} trials, s", f"{MANY_TRIALS} trials, s", "each further, s", "its CPU, s"]
    return _table(["logistic regression, 5 epochs", *head, "trials a minute", "/ digitlab"], rows)


def cnn_table(results: Results) -> str:
    rows = []
    for name in names(results, CNN):
        wall, cpu = walls(results, name, CNN), _medians(results, name, CNN, "cpu")
        size = max(wall)
        ours = walls(results, OURS, CNN).get(size)
        numbers = [_text(wall[size], ".1f"), _text(cpu[size], ".1f")]
        rows.append([name, str(size), *numbers, _text(ratio(wall[size], ours), ".2f", "x")])
    return _table(["CNN, 2 epochs", "trials", "wall, s", "CPU, s", "/ digitlab"], rows)


def accuracy_table(results: Results) -> str:
    rows = []
    for name, unit, points in accuracy_points(results):
        rows += [
            [
                f"{name}, {size} {unit if size > 1 else ONE[unit]}",
                f"{s:.1f}",
                f"{100 * a:.2f} %",
            ]
            for size, s, a in points
        ]
    return _table(["one logistic regression, command to end", "s", "test accuracy"], rows)


def accuracy_points(results: Results) -> list[tuple[str, str, list[tuple[int, float, float]]]]:
    """Name, what is counted, and (count, seconds, accuracy in [0, 1]) of each who trains one model."""
    made = []
    for name in names(results, ACCURACY):
        seconds = walls(results, name, ACCURACY)
        accuracy = _medians(results, name, ACCURACY, "value")
        unit = "epochs" if name == OURS else "passes" if name.endswith("saga") else "iterations"
        made.append((name, unit, [(size, seconds[size], accuracy[size]) for size in seconds]))
    return made


def targets_table(results: Results) -> str:
    """Those of which all was measured."""
    rows = []
    for what, value, (first, goal), unit in targets(results):
        if value is None:
            continue
        number = f"{value:.1f} s" if unit == "s" else f"{value:.2f}x"
        limits = [
            f"{'<= ' if first > goal else '>= '}{limit:g} {unit}".replace(" x", "x")
            for limit in (first, goal)
        ]
        rows.append([what, number, *limits, verdict(value, first, goal)])
    return _table(["target", "measured", "first", "goal", ""], rows)


def targets(results: Results) -> list[tuple[str, float | None, tuple[float, float], str]]:
    """What, its value, the first target and the goal, and the unit: s, or x for a ratio."""
    ours = walls(results, OURS, LOGISTIC)
    peers = [walls(results, name, LOGISTIC) for name in names(results, LOGISTIC) if name != OURS]
    cnns = [walls(results, name, CNN) for name in names(results, CNN) if name != OURS]
    further = ratio(best(increment(each) for each in peers), increment(ours))
    few = ratio(best(at(each, FEW) for each in peers), at(ours, FEW))
    size = max(walls(results, OURS, CNN), default=0)
    cnn = ratio(best(each.get(size) for each in cnns), walls(results, OURS, CNN).get(size))
    start = ratio(*(best(walls(results, who, START).values()) for who in (OURS, "import torch")))
    members = best(_medians(results, OURS, MEMBERS, "value").values())
    many = walls(results, OURS, MANY)
    one = walls(results, OURS, ACCURACY).get(EPOCHS)
    return [
        ("each further recorded logistic trial, against the best peer", further, (6, 10), "x"),
        (f"{FEW} such trials end to end, against the best peer", few, (5, 7), "x"),
        ("an epoch of a logistic regression, alone against among 64", members, (5, 7), "x"),
        ("1,000 recorded runs of one epoch, digits, end to end", many.get(1000), (40, 25), "s"),
        (f"{size} CNNs end to end, against the best peer", cnn, (1.5, 2), "x"),
        ("a sweep from command to first epoch, against `import torch`", start, (1.5, 1.2), "x"),
        (f"one logistic run of {EPOCHS} epochs on MNIST, command to end", one, (4, 3), "s"),
    ]


def verdict(value: float, first: float, goal: float) -> str:
    """Goal, first target or neither; a goal under the first target is an upper limit."""
    sign = -1 if goal < first else 1
    if sign * value >= sign * goal:
        return "goal met"
    return "first met, goal MISSED" if sign * value >= sign * first else "MISSED"


def notes(results: Results) -> str:
    """What a reader of the tables must know of the run."""
    machine = results["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in results["versions"].items())
    taken = f"medians of {results['rounds']} rounds" if results["rounds"] > 1 else "one round"
    said = [
        f"{machine['cpu']}, {machine['cores']} cores, {machine['os']}.",
        f"{versions}.",
        f"Commit {results['commit'][:10]}; {taken}.",
        "~: scaled from fewer trials by the peer's own increment.",
    ]
    if results["small"]:
        said.append("A TRY-OUT with 2 and 8 trials: this measures nothing.")
    said += [f"Left out: {name}: {reason}." for name, reason in results["left_out"].items()]
    return "\n".join(said)


def profile_table(profile: Results) -> str:
    """What a sweep's seconds were spent on."""
    total = profile["cores"] * profile["wall"]
    rows = [
        [kind, f"{seconds:.1f}", f"{100 * seconds / total:.0f} %"]
        for kind, seconds in profile["seconds"].items()
    ]
    return _table([f"{profile['trials']} trials, {profile['cores']} cores", "s", "share"], rows)


def limit(profile: Results) -> str:
    """What a trial's products alone would take at the machine's measured peak."""
    peak, cores = profile["gflops_a_core"], profile["cores"]
    operations = profile["operations"] / 1e9
    return (
        f"The products of one trial are {operations:.1f} GFLOP; at {peak:.0f} GFLOP/s a core,\n"
        f"measured on large matrices, {cores} cores take {operations / peak / cores:.3f} s for them."
    )


def _scaled(by_size: dict[int, float], size: int) -> str:
    value = at(by_size, size)
    return ("" if size in by_size or value is None else "~ ") + _text(value, ".1f")


def _text(value: float | None, form: str, unit: str = "") -> str:
    return "–" if value is None else f"{value:{form}}{unit}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] + ["---:"] * (len(head) - 1), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
