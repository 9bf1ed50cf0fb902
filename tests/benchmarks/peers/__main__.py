"""digitlab and its peers in turns, in one run: `make bench-peers`.

`python -m tests.benchmarks.peers --rounds 1 --only logistic,cnn` chooses: a word is a kind of work
(logistic cnn accuracy start members many) or part of a name ("ray", "digitlab"). Needs MNIST in
$DIGITLAB_DATA; the first time also a network, for the peers' environments. Writes results.json after
each measurement, then charts, into --out.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from digitlab.runs import provenance
from digitlab.training import arithmetic
from tests.benchmarks.peers import charts, environments, summary
from tests.benchmarks.peers.contestants import WORKS, Contestant, contestants
from tests.benchmarks.processes import CHECKOUT, CommandError, adopt_orphans

OUT = CHECKOUT / "mlruns" / "peers"


def main() -> None:
    options = parsed(sys.argv[1:])
    if not os.environ.get("DIGITLAB_DATA"):
        sys.exit("this needs MNIST: set DIGITLAB_DATA to a folder that holds MNIST/raw")
    adopt_orphans()
    everyone = contestants(small=options.small)
    chosen = [each for each in everyone if is_chosen(each, options.only)]
    if not chosen:
        sys.exit(f"--only names work ({', '.join(WORKS)}) or parts of: {names_of(everyone)}")
    results = begin(rounds=options.rounds, small=options.small)
    present = install(chosen, results)
    options.out.mkdir(parents=True, exist_ok=True)
    file = options.out / "results.json"
    measure_all(present, results, file)
    drawn = charts.draw(results, options.out)
    print("\n" + "\n\n".join([summary.notes(results), *summary.tables(results)]))
    print(f"\nload average at the end: {load()}\n{file}", *drawn, sep="\n")


def parsed(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make bench-peers", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="of which medians are taken (default 3)")
    parser.add_argument("--only", type=lambda text: text.lower().split(","), help="a,b: work or names")
    parser.add_argument("--small", action="store_true", help="try everything; measures nothing")
    parser.add_argument("--out", type=Path, default=OUT, help="folder of results.json and charts")
    return parser.parse_args(arguments)


def is_chosen(contestant: Contestant, words: Sequence[str] | None) -> bool:
    """A kind of work chooses everybody at it, any other word whose name it is part of."""
    if words is None:
        return True
    return any(
        word == contestant.work or (word not in WORKS and word in contestant.name.lower())
        for word in words
    )


def names_of(everyone: Sequence[Contestant]) -> str:
    return ", ".join(dict.fromkeys(each.name for each in everyone))


def begin(*, rounds: int, small: bool) -> summary.Results:
    """Results without samples; says what is measured, and where."""
    machine, versions, code = arithmetic.machine(), provenance.versions(), provenance.code()
    changed = " and changes" if code["dirty"] == "true" else ""
    print(f"{machine['cpu']}, {machine['cores']} cores, {machine['os']}; load average {load()}")
    print(", ".join(f"{name} {version}" for name, version in versions.items()))
    print(f"commit {code['commit'][:10]}{changed}; {rounds} rounds", flush=True)
    return {
        "machine": {name: machine[name] for name in ("cpu", "cores", "os")},
        "versions": versions,
        "commit": code["commit"] + changed,
        "rounds": rounds,
        "small": small,
        "load_at_start": load(),
        "peers": {},
        "left_out": {},
        "samples": [],
    }


def install(chosen: Sequence[Contestant], results: summary.Results) -> list[Contestant]:
    """Those whose environment is there; the others are noted as left out."""
    failed: dict[str, str] = {}
    for name in dict.fromkeys(each.environment for each in chosen if each.environment):
        results["peers"][name] = environments.pinned(name)
        if not environments.is_built(name):
            print(f"building {environments.ENVIRONMENTS / name}", flush=True)
        try:
            environments.build(name)
        except environments.InstallationError as error:
            failed[name] = f"cannot be installed: {error}"
    for each in chosen:
        if each.environment in failed:
            leave_out(each, failed[each.environment], results)
    return [each for each in chosen if each.environment not in failed]


def measure_all(present: Sequence[Contestant], results: summary.Results, file: Path) -> None:
    """Round by round, in `turns`; who fails once is left out from then on."""
    started = time.perf_counter()
    for number in range(1, results["rounds"] + 1):
        for contestant, size in turns(present):
            if f"{contestant.name} ({contestant.work})" in results["left_out"]:
                continue
            try:
                sample = contestant.run(size)
            except (CommandError, AssertionError) as error:
                leave_out(contestant, last_line(error), results)
                continue
            results["samples"].append(
                {"round": number, "work": contestant.work, "name": contestant.name, "size": size}
                | asdict(sample)
            )
            file.write_text(json.dumps(results, indent=1) + "\n")
            value = "" if sample.value is None else f"{sample.value:9.4f}"
            print(
                f"{(time.perf_counter() - started) / 60:5.1f} min  round {number}  "
                f"{contestant.work:9} {contestant.name:34} {size:5} "
                f"{sample.wall:8.2f} s wall {sample.cpu:8.2f} s CPU{value}",
                flush=True,
            )


def turns(present: Sequence[Contestant]) -> list[tuple[Contestant, int]]:
    """By work; in it the first size of everybody, then the second: neighbours are compared."""
    return [
        (contestant, contestant.sizes[place])
        for work in WORKS
        for place in range(max((len(each.sizes) for each in present if each.work == work), default=0))
        for contestant in present
        if contestant.work == work and place < len(contestant.sizes)
    ]


def leave_out(contestant: Contestant, reason: str, results: summary.Results) -> None:
    results["left_out"][f"{contestant.name} ({contestant.work})"] = reason
    print(f"LEFT OUT: {contestant.name} ({contestant.work}): {reason}", flush=True)


def last_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[-1]


def load() -> str:
    return " ".join(f"{value:.2f}" for value in os.getloadavg())


if __name__ == "__main__":
    main()
