"""Between Hydra's plugin classes and the sweep proper."""

import dataclasses
from typing import Any

from digitlab.errors import UsageError
from digitlab.results.trial_result import TrialResult
from digitlab.sweep.launch import Options, launch
from digitlab.sweep.planning.plan import overrides_of, plan, plan_lists

OURS = "DigitlabLauncher"


@dataclasses.dataclass(slots=True)
class _Request:
    """What the command line asks for beyond what Hydra hands on."""

    options: Options


REQUEST = _Request(Options())


def sweep(arguments: list[str], launcher: Any) -> list[TrialResult]:
    """With a launcher of Hydra's or of a third party: check everything, then let it run the grid."""
    manifest = plan(arguments)
    if type(launcher).__name__ == OURS:
        return launch(manifest, REQUEST.options)
    if manifest.is_search:
        raise UsageError(f"sweep.search={manifest.settings.sweep.search} needs hydra/launcher=digitlab")
    if REQUEST.options != Options():
        raise UsageError("--dry-run, --rerun and their like need hydra/launcher=digitlab")
    for job in launcher.launch(overrides_of(manifest, arguments), initial_job_idx=0):
        job.return_value  # noqa: B018  (raises what the job ended with)
    return []


def run_lists(lists: list[list[str]]) -> list[TrialResult]:
    """Trials that another sweeper made, such as hydra/sweeper=basic."""
    return launch(plan_lists(lists), REQUEST.options)
