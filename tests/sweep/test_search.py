"""Search: seeded, resumable to the same trials, pruned, by validation only."""

import csv
import json
import signal
import statistics
from collections.abc import Callable
from pathlib import Path

import optuna
import pytest

from digitlab.config import project
from digitlab.randomness import derive_seed
from digitlab.sweep.sweep_folder import all_sweeps
from digitlab.tracking.connection.location import resolve_uri
from digitlab.tracking.store import RunStore
from tests.support.cli import Cli, Start
from tests.support.processes import is_training, wait_for
from tests.support.sweeps import tree

SPACE = ["optimizer.learning_rate=tag(log, interval(1e-4, 1e-1))", "batch_size=interval(16, 256)"]
Run = Callable[..., None]


def chosen(study: str) -> list[tuple[str, str]]:
    return [(run.params["optimizer.learning_rate"], run.params["batch_size"]) for run in tree(study)[1]]


def events(kind: str) -> list[dict[str, object]]:
    (sweep,) = all_sweeps(project.sweeps())
    return [event for event in sweep.events() if event["event"] == kind]


@pytest.fixture
def search(digitlab: Cli) -> Run:
    def run(*overrides: str, code: int = 0) -> None:
        result = digitlab("sweep", "epochs=2", "executor=inprocess", *overrides)
        assert result.code == code, result.err

    return run


@pytest.mark.fault("F20")
@pytest.mark.parametrize("sampler", ["random", "tpe", "gp", "cmaes"])
def test_a_search_resumed_makes_the_trials_of_one_uninterrupted(
    sampler: str, search: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twice: cut short in the middle of trial 12, when the sampler has begun to learn."""
    from digitlab.runs import experiment

    line = [f"sweep.search={sampler}", "trials=14", "sweep.seed=3", *SPACE]
    search("study=whole", *line)
    whole = chosen("whole")
    assert len(set(whole)) == 14
    real, left = experiment.evaluate, [5, 7]

    def evaluate(logits: object, labels: object) -> object:
        left[0] -= 1
        if left[0] == 0:
            left.pop(0)
            left.append(10**6)
            raise KeyboardInterrupt
        return real(logits, labels)  # type: ignore[arg-type]

    with monkeypatch.context() as patched:
        patched.setattr(experiment, "evaluate", evaluate)
        for _ in range(2):
            search("study=cut", *line, code=130)
    assert 0 < len([r for r in tree("cut")[1] if r.status == "FINISHED"]) < 14
    search("study=cut", *line)
    finished = [run for run in tree("cut")[1] if run.status == "FINISHED"]
    assert [(r.params["optimizer.learning_rate"], r.params["batch_size"]) for r in finished] == whole


def test_random_search_is_optunas_own(search: Run) -> None:
    """The oracle asks Optuna itself, with a sampler of the documented seed for each trial."""
    search("study=oracle", "sweep.search=random", "trials=4", *SPACE)
    study = optuna.create_study()
    expected = []
    for number in range(4):
        study.sampler = optuna.samplers.RandomSampler(seed=derive_seed(0, "search", number) % 2**32)
        trial = study.ask()
        rate = trial.suggest_float("optimizer.learning_rate", 1e-4, 1e-1, log=True)
        expected.append((f"{rate:.6g}", str(trial.suggest_int("batch_size", 16, 256))))
    assert [(f"{float(rate):.6g}", size) for rate, size in chosen("oracle")] == expected


def test_a_search_learns(search: Run) -> None:
    """TPE after its first ten random trials looks where learning rates are good."""
    search(
        "study=learn", "sweep.search=tpe", "trials=30", "optimizer.learning_rate=interval(1e-5, 1.0)"
    )
    scores = [run.metrics["chosen/validation_accuracy"] for run in tree("learn")[1]]
    assert statistics.median(scores[15:]) > statistics.median(scores[:10])


@pytest.mark.fault("F20")
def test_trials_is_a_total_however_often_it_is_repeated(search: Run) -> None:
    line = ["study=total", "sweep.search=random", "trials=3", *SPACE]
    search(*line)
    search(*line)
    assert len(tree("total")[1]) == 3


def test_a_dry_run_of_a_search_says_from_what_and_how_much_is_left(digitlab: Cli, home: Path) -> None:
    line = ["sweep", "epochs=2", "executor=inprocess", "study=dry", "sweep.search=tpe", "trials=4"]
    line += ["optimizer.learning_rate=interval(1e-3,1e-1)"]
    before = digitlab(*line, "--dry-run")
    assert before.code == 0
    assert "optimizer.learning_rate: 0.001 to 0.1" in before.out
    assert "4 trials: 0 ended, 4 to run\ntime: unknown" in before.out
    assert not (home / "mlruns").exists()
    digitlab("train", "epochs=2", "study=dry")
    assert "time: at most about" in digitlab(*line, "--dry-run").out
    digitlab(*line)
    assert "4 trials: 4 ended, 0 to run\ntime: none" in digitlab(*line, "--dry-run").out


def test_pruned_trials_end_as_killed_with_reason_and_epoch(digitlab: Cli) -> None:
    result = digitlab(
        *(
            "sweep",
            "epochs=8",
            "executor=inprocess",
            "study=pruned",
            "sweep.search=random",
            "trials=12",
        ),
        *("sweep.pruner=median", "optimizer.learning_rate=tag(log, interval(1e-6, 1e-1))"),
    )
    assert result.code == 0, result.err
    (own,), trials = tree("pruned")
    pruned = [run for run in trials if run.status == "KILLED"]
    assert pruned
    assert {run.status for run in trials} == {"KILLED", "FINISHED"}
    for run in pruned:
        assert run.name.startswith("pruned: ")
        epoch = int(run.tags["digitlab.pruned.epoch"])
        assert 1 <= epoch < 8
        assert f"given up after epoch {epoch}: validation/accuracy" in run.tags["digitlab.error"]
        assert "test/accuracy" not in run.metrics
        assert len(RunStore(resolve_uri(None)).history(run, "validation/accuracy")) == epoch
    assert own.status == "FINISHED"
    assert f"{len(pruned)} pruned" in result.err
    # The oracle: Optuna's median pruner on the same histories.
    study = optuna.create_study(
        direction="maximize", pruner=optuna.pruners.MedianPruner(n_startup_trials=5)
    )
    for run in trials:
        trial = study.ask()
        history = RunStore(resolve_uri(None)).history(run, "validation/accuracy")
        decisions = []
        for epoch, value in history:
            trial.report(value, epoch)
            decisions.append(trial.should_prune())
        assert decisions == [False] * (len(history) - 1) + [run.status == "KILLED"]
        if run.status == "KILLED":
            study.tell(trial, state=optuna.trial.TrialState.PRUNED)
        else:
            study.tell(trial, run.metrics["chosen/validation_accuracy"])


@pytest.mark.parametrize("pruner", ["asha", "hyperband"])
def test_the_other_pruners_prune_too(pruner: str, digitlab: Cli) -> None:
    result = digitlab(
        *(
            "sweep",
            "epochs=9",
            "executor=inprocess",
            "study=pruned",
            "sweep.search=random",
            "trials=15",
        ),
        *(f"sweep.pruner={pruner}", "optimizer.learning_rate=tag(log, interval(1e-6, 1e-1))"),
    )
    assert result.code == 0, result.err
    assert {run.status for run in tree("pruned")[1]} == {"KILLED", "FINISHED"}


def test_a_trial_that_diverges_is_a_failed_trial_and_the_search_goes_on(digitlab: Cli) -> None:
    result = digitlab(
        *("sweep", "epochs=1", "executor=inprocess", "study=nan", "sweep.search=tpe", "trials=12"),
        *("model=cnn", "optimizer=sgd", "optimizer.learning_rate=0.1,1e30", "seed=range(6)"),
    )
    assert result.code == 1
    states = [event["state"] for event in events("ended")]
    assert len(states) == 12
    assert {"FINISHED", "FAILED"} == set(states)


def test_seeds_of_a_point_are_one_trial_of_the_search(search: Run) -> None:
    search("study=seeds", "sweep.search=tpe", "trials=3", "repeats=2", *SPACE)
    trials = tree("seeds")[1]
    assert [run.params["seed"] for run in trials] == ["0", "1"] * 3
    pairs = chosen("seeds")
    assert pairs[0::2] == pairs[1::2]
    assert len(set(pairs)) == 3


def test_with_several_workers_the_next_trial_starts_when_one_is_free(
    digitlab: Cli,
) -> None:
    """Not in batches: a short trial's worker goes on while a long trial still runs."""
    result = digitlab(
        *("sweep", "study=free", "sweep.search=random", "trials=8", "epochs=1,60", "model=cnn"),
        *("workers=2", "sweep.seed=1", "seed=range(4)"),
    )
    assert result.code == 0, result.err
    order = [
        (event["event"], event["number"])
        for event in next(iter(all_sweeps(project.sweeps()))).events()
        if event["event"] in ("started", "ended")
    ]
    running: set[object] = set()
    overlapping = 0
    for kind, number in order:
        running = running | {number} if kind == "started" else running - {number}
        assert len(running) <= 2
        overlapping += kind == "started" and len(running) == 2
    assert overlapping >= 5, order


@pytest.mark.fault("F19")
def test_a_killed_search_with_pruning_goes_on_as_if_nothing_had_been(
    digitlab_process: Start, digitlab: Cli, home: Path
) -> None:
    line = ["sweep", "model=cnn", "epochs=12", "sweep.search=tpe", "trials=7", "sweep.pruner=median"]
    line += ["workers=1", "optimizer.learning_rate=tag(log, interval(1e-5, 1e-1))"]
    line += ["checkpoint.every_seconds=0"]
    for study in ("cut", "whole"):
        if study == "cut":
            for number in (signal.SIGKILL, signal.SIGTERM, signal.SIGINT):
                process = digitlab_process(*line, "study=cut")
                wait_for(lambda: is_training(home), "training")
                process.send_signal(number)
                process.communicate()
                if process.returncode == 0 and number != signal.SIGKILL:
                    break  # it was faster
                assert process.returncode in (-number, 128 + number)
        result = digitlab(*line, f"study={study}")
        assert result.code == 0, result.err

    def outcome(study: str) -> list[tuple[str, str, str, str]]:
        return [
            (
                run.name,
                run.status,
                run.tags.get("digitlab.weights", ""),
                run.tags.get("digitlab.error", ""),
            )
            for run in tree(study)[1]
        ]

    assert outcome("cut") == outcome("whole")
    assert {status for _, status, _, _ in outcome("cut")} == {"FINISHED", "KILLED"}


@pytest.mark.parametrize("sampler", ["random", "tpe", "gp", "cmaes"])
def test_a_search_trains_nothing_twice_and_ends_when_its_space_is_used_up(
    sampler: str, digitlab: Cli, home: Path
) -> None:
    line = ["sweep", "epochs=1", "executor=inprocess", "study=small", f"sweep.search={sampler}"]
    line += ["trials=9", "batch_size=interval(100,102)"]
    line += [] if sampler == "cmaes" else ["optimizer=sgd,adam"]
    size = 3 if sampler == "cmaes" else 6
    result = digitlab(*line)
    assert result.code == 0, result.err
    assert f"the search ends after {size} of 9 trials" in result.err
    assert f"{size} finished" in result.err
    trained = [(run.params["batch_size"], run.params["optimizer.name"]) for run in tree("small")[1]]
    assert len(trained) == len(set(trained)) == size
    again = digitlab(*line)
    assert f"{size} trials, all ended before: {size} finished" in again.out
    assert f"{size} trials: {size} ended, 0 to run" in digitlab(*line, "--dry-run").out
    (listed,) = json.loads(digitlab("sweeps", "--json").out)
    assert (listed["done"], listed["pending"], listed["status"]) == (size, 0, "finished")


@pytest.mark.fault("F20")
@pytest.mark.parametrize("sampler", ["tpe", "cmaes"])
def test_a_small_search_resumed_makes_the_trials_of_one_uninterrupted(
    sampler: str, search: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was chosen again and replaced is replaced by the same."""
    from digitlab.sweep.workers.runner import Runner

    line = [f"sweep.search={sampler}", "trials=9", "batch_size=interval(100,108)"]
    search("study=whole", *line)
    real, left = Runner._start_more, [8]

    def start_more(self: Runner, *arguments: object) -> None:
        left[0] -= 1
        if left[0] == 0:
            raise KeyboardInterrupt
        real(self, *arguments)  # type: ignore[arg-type]

    with monkeypatch.context() as patched:
        patched.setattr(Runner, "_start_more", start_more)
        search("study=cut", *line, code=130)
    search("study=cut", *line)
    assert len(set(chosen("whole"))) == 9
    assert chosen("cut") == chosen("whole")
    replaced = [
        [e["point"] for e in sweep.events() if e.get("replaces")]
        for sweep in all_sweeps(project.sweeps())
    ]
    assert replaced[0] == replaced[1] != []


def test_a_search_whose_journal_is_damaged_goes_on(search: Run, digitlab: Cli) -> None:
    line = ["study=lost", "sweep.search=random", "trials=3", "batch_size=interval(100,400)"]
    search(*line)
    (sweep,) = all_sweeps(project.sweeps())
    journal = sweep.folder / "journal.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    events = [json.loads(text) for text in lines]
    lost = next(i for i, e in enumerate(events) if e["event"] == "asked" and e["point"] == 1)
    journal.write_bytes(
        b"".join([*lines[:lost], lines[lost].replace(b"asked", b"a\xffked"), *lines[lost + 1 :]])
    )
    search(*line)
    trials = tree("lost")[1]
    assert [run.tags["trial"] for run in trials] == ["0", "1", "2", "3"], (
        "one in the place of the lost one"
    )
    assert {run.status for run in trials} == {"FINISHED"}
    assert (sweep.folder / "journal.jsonl.damaged").read_bytes().count(b"\n") == 1
    assert "damaged" not in digitlab("sweeps").err


def test_a_search_is_frozen_too(search: Run, home: Path) -> None:
    line = ["study=frozen", "sweep.search=random", "trials=2", "model=cnn,logistic_regression"]
    search(*line)
    (sweep,) = all_sweeps(project.sweeps())
    manifest = json.loads((sweep.folder / "manifest.json").read_text())
    assert [base["groups"]["model"] for base in manifest["bases"]] == ["cnn", "logistic_regression"]
    assert manifest["bases"][0]["values"]["optimizer"]["learning_rate"] == 0.001


def test_what_another_search_has_run_counts_as_this_ones_own(search: Run, digitlab: Cli) -> None:
    """TPE begins at random: with one seed, at the very points of a random search."""
    search("study=s", "sweep.search=random", "trials=4", "sweep.seed=3", *SPACE)
    search("study=s", "sweep.search=tpe", "trials=6", "sweep.seed=3", *SPACE)
    second = json.loads(digitlab("sweeps", "--json").out)[0]
    found = json.loads(digitlab("compare", second["id"], "--json").out)
    assert len(found["rows"]) == 6
    store = RunStore(resolve_uri(None))
    own_run = store.with_tag("digitlab.sweep", second["id"])
    assert own_run is not None
    text = store.content(own_run, "trials.csv").decode()
    rows = list(csv.DictReader(text.splitlines()))
    assert [int(row["number"]) for row in rows] == list(range(6))
    assert [row["reused"] for row in rows] == ["True"] * 4 + ["False"] * 2
