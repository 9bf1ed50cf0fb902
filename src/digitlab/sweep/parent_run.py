"""The sweep's own run in the tracking store: the parent of its trials, with manifest and summary."""

import contextlib
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Self

from digitlab.config import project
from digitlab.config.checking import to_dict
from digitlab.errors import Interrupted, TrackingError
from digitlab.results.summary import Summary, as_csv, as_markdown
from digitlab.results.trial_result import TrialResult
from digitlab.runs import provenance
from digitlab.sweep.finished import belongs
from digitlab.sweep.manifest import Manifest
from digitlab.sweep.settings import to_values
from digitlab.tracking import names, process
from digitlab.tracking.connection.location import shown_server
from digitlab.tracking.delivery import Delivery, bounded_store
from digitlab.tracking.run_folder import RunFolder, Status
from digitlab.tracking.views import link, sweep_view

LOCAL_SERVER = "http://127.0.0.1:5000"  # where `digitlab ui` listens unless the port is taken
PARAM_NAMES = {group: f"{group}.name" for group in ("model", "optimizer", "scheduler", "data")}


def record_id(manifest: Manifest) -> str:
    return f"sweep-{manifest.id}"


def resume_command(manifest: Manifest) -> str:
    return f"digitlab resume {manifest.id}"


class ParentRun:
    """Open while its process works on the sweep; a sweep that was cut short goes on in the same run.

    Left before `finish`, it is KILLED. link: to its view; None while the store does not answer.
    """

    def __init__(self, manifest: Manifest, say: Callable[[str], None]) -> None:
        self._manifest, self._say = manifest, say
        self._record = _open_record(manifest)
        self._delivery = Delivery(self._record, say)
        self._is_finished = False
        self.link: str | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if not self._is_finished:
            self.finish(
                "KILLED", {names.ERROR_TAG: str(error)} if isinstance(error, Interrupted) else {}
            )

    @property
    def run_id(self) -> str | None:
        return self._record.delivered.run_id

    def start(self) -> None:
        """Deliver it, so that trials have a parent, and make the view."""
        uri, manifest = self._manifest.tracking_uri, self._manifest
        try:
            self._delivery.deliver()
            experiment_id = self._record.delivered.experiment_id
            assert experiment_id is not None, "delivered"
            knobs = [PARAM_NAMES.get(knob, knob) for knob in _varying(manifest)]
            metric = names.CHOSEN[manifest.settings.sweep.metric]
            view = sweep_view(manifest.name, manifest.id, metric, knobs)
            bounded_store(uri).set_view(experiment_id, manifest.id, view)
        except TrackingError as error:
            self._say(f"{error}; the sweep goes on, and its records stay here for `digitlab sync`")
            return
        is_on_server = uri.startswith(("http://", "https://"))  # which has a UI of its own
        server = shown_server(uri) if is_on_server else LOCAL_SERVER
        shown = link(server, experiment_id, key=manifest.id, charts=True)
        self.link = shown if is_on_server else f"{shown}  (while `digitlab ui` runs)"

    def adopt(self, results: Sequence[TrialResult]) -> None:
        """Let the sweep's view show the runs that other sweeps have made, too."""
        if self.run_id is None:
            return
        store, sweep_id = bounded_store(self._manifest.tracking_uri), self._manifest.id
        with contextlib.suppress(TrackingError):  # the view shows less then; no trial is lost
            for run_id in [r.run_id for r in results if r.reused and r.run_id]:
                run = store.find(run_id)
                if not belongs(run, sweep_id):
                    sweeps = f"{run.tags.get(names.SWEEP_TAG, '')} {sweep_id}".strip()
                    store.set_tag(run_id, names.SWEEP_TAG, sweeps)

    def draw(self, summary: Summary) -> None:
        """Figures as artifacts. They name no run of the store."""
        from digitlab.results import figures

        if summary.best is not None:
            folder = self._record.artifacts
            figures.draw_parallel_coordinates(summary, folder / names.PARALLEL_PICTURE)
            figures.draw_importance(summary, folder / names.IMPORTANCE_PICTURE)
            figures.draw_learning_curves(summary, folder / names.CURVES_PICTURE)

    def summarise(self, summary: Summary, step: int) -> dict[str, str]:
        """Tables as artifacts, the best as metrics of `step`; returns tags that name it."""
        from digitlab.results import page

        folder, best = self._record.artifacts, summary.best
        (folder / names.TRIALS_FILE).write_text(as_csv(summary), "utf-8")
        (folder / names.SUMMARY_FILE).write_text(as_markdown(summary), "utf-8")
        if best is None:
            return {}
        page.write_page(summary, folder / names.SWEEP_PAGE)
        scores = {k: v for k, v in best.metrics.items() if k.startswith(("chosen/", "test/"))}
        self._record.log_metrics({f"{names.BEST_METRIC}{k}": v for k, v in scores.items()}, step=step)
        return {names.BEST_TRIAL_TAG: best.name, names.BEST_RUN_TAG: best.run_id or ""}

    def finish(self, status: Status, tags: Mapping[str, str]) -> None:
        self._is_finished = True
        self._record.finish(status, tags)
        self._delivery.finish()
        self._record.release()


def _open_record(manifest: Manifest) -> RunFolder:
    earlier = RunFolder.reopen(project.records() / record_id(manifest))
    if earlier:
        return earlier
    settings = manifest.settings.sweep
    params = {
        "sweep.search": settings.search,
        "sweep.metric": settings.metric,
        "sweep.repeats": str(settings.repeats),
        "sweep.trials": str(manifest.num_trials),
    }
    if settings.target is not None:
        params["sweep.target"] = str(settings.target)
    for knob in _varying(manifest):
        texts = dict.fromkeys(t.swept[knob] for t in manifest.trials if knob in t.swept)
        params[f"{names.SWEPT_TAG}{knob}"] = ", ".join(texts) or json.dumps(manifest.axes.get(knob))
    versions, code = provenance.versions(), provenance.code()
    record = RunFolder.create(
        project.records(),
        record_id=record_id(manifest),
        is_resumable=True,
        study=manifest.study,
        name=manifest.name,
        tracking_uri=manifest.tracking_uri,
        params={name: text[:6000] for name, text in params.items()},
        tags={
            names.KIND_TAG: "sweep",
            names.PARENT_SWEEP_TAG: manifest.id,
            names.VERSION_TAG: versions["digitlab"],
            names.COMMIT_TAG: code["commit"],
            names.DIRTY_TAG: code["dirty"],
            names.COMMAND_TAG: manifest.command,
            names.SOURCE_NAME_TAG: "digitlab",
            names.SOURCE_TYPE_TAG: "LOCAL",
            names.SOURCE_COMMIT_TAG: code["commit"],
            names.NOTE_TAG: _note(manifest),
        },
        process=process.this_process(),
    )
    (record.artifacts / names.MANIFEST_FILE).write_text(json.dumps(_shown(manifest), indent=1))
    return record


def _note(manifest: Manifest) -> str:
    return (
        f"    {manifest.command}\n\nIts trials fold out under this run, or: the filter "
        f"`tags.{names.SWEEP_TAG} LIKE '%{manifest.id}%'`. Finish it, or see its table again: "
        f"`{resume_command(manifest)}`. Which differences are real: `digitlab compare {manifest.id}`; "
        f"a page to hand on: `digitlab report {manifest.id}`.\n"
    )


def _varying(manifest: Manifest) -> list[str]:
    """The knobs that are swept, in the order of the trials."""
    return list(dict.fromkeys(k for t in manifest.trials for k in t.swept)) or list(manifest.axes)


def _shown(manifest: Manifest) -> dict[str, object]:
    """The manifest for people to read."""
    trials = []
    for trial in manifest.trials:
        about = {"number": trial.number, "name": trial.name, "swept": trial.swept}
        config = to_dict(trial.config())
        trials.append({**about, "fingerprint": trial.fingerprint, "config": config})
    return {
        "id": manifest.id,
        "name": manifest.name,
        "command": manifest.command,
        "settings": to_values(manifest.settings),
        "axes": manifest.axes,
        "trials": trials,
    }
