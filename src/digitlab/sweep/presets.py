"""The best trial of a sweep as a preset: conf/experiment/NAME.yaml, which gives its result exactly."""

import re
from pathlib import Path

from digitlab.config import project
from digitlab.errors import DigitlabError, UsageError
from digitlab.results.summary import Summary
from digitlab.sweep.manifest import Manifest
from digitlab.sweep.search import trials_made
from digitlab.sweep.sweep_folder import SweepFolder
from digitlab.text import yaml_text
from digitlab.text.files import write_atomically

GROUPS = ("model", "optimizer", "scheduler", "data")


def check_preset(name: str) -> Path:
    """The file that would be written.

    Raises:
        UsageError: it is there already, or the name cannot be that of a file.
    """
    if not re.fullmatch(r"[A-Za-z0-9][\w-]*", name):
        raise UsageError(f"--save-best takes a name of letters, digits, _ and -, got {name!r}")
    file = project.conf() / "experiment" / f"{name}.yaml"
    if file.exists():
        raise UsageError(f"conf/experiment/{name}.yaml is there already: choose another name")
    return file


def write_preset(name: str, folder: SweepFolder, manifest: Manifest, summary: Summary) -> str:
    """Write the best trial's configuration; returns what was written, as a sentence."""
    if summary.best is None:
        raise DigitlabError(
            "no trial has finished with a validation score: there is no best one to save"
        )
    trials = trials_made(folder, manifest) if manifest.is_search else manifest.trials
    trial = next(trial for trial in trials if trial.number == summary.best.number)
    values = {k: v for k, v in trial.values.items() if k not in ("tracking", "run_name", "device")}
    choices = [{f"override /{group}": values[group]["name"]} for group in GROUPS]
    knobs = {
        group: {k: v for k, v in part.items() if (group, k) != ("data", "root") and k != "name"}
        if isinstance(part, dict)
        else part
        for group, part in values.items()
    }
    body = {"defaults": choices, **{k: v for k, v in knobs.items() if v != {}}}
    head = (
        "# @package _global_\n"
        f"{project.schema_line('experiment')}\n"
        f"# The best of sweep {manifest.id} ({manifest.name}) by {summary.metric}: {trial.name}\n"
        f"#   {manifest.command}\n"
    )
    file = check_preset(name)
    write_atomically(file, head + yaml_text.dump(body))
    return f"wrote conf/experiment/{name}.yaml: digitlab train experiment={name}"
