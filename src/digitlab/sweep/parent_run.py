"""The sweep's own run in the tracking store: the parent of its trials, with manifest and summary."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from digitlab.config import project
from digitlab.config.checking import to_dict
from digitlab.errors import TrackingError
from digitlab.results.trial_result import TrialResult
from digitlab.runs import provenance
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
    """Open while its process works on the sweep; a sweep that was cut short goes on in the same run."""

    def __init__(self, manifest: Manifest, say: Callable[[str], None]) -> None:
        self.manifest, self._say = manifest, say
        self._record = _open_record(manifest)
        self._delivery = Delivery(self._record, say)

    @property
    def run_id(self) -> str | None:
        return self._record.delivered.run_id

    @property
    def artifacts(self) -> Path:
        return self._record.artifacts

    @property
    def is_on_server(self) -> bool:
        """Whether the store has a UI of its own, at the link that `start` gives."""
        return self.manifest.tracking_uri.startswith(("http://", "https://"))

    def start(self) -> str | None:
        """Deliver it, so that trials have a parent, and make the view; returns a link to it."""
        uri, manifest = self.manifest.tracking_uri, self.manifest
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
            return None
        server = shown_server(uri) if self.is_on_server else LOCAL_SERVER
        return link(server, experiment_id, key=manifest.id, charts=True)

    def summarise(self, results: Sequence[TrialResult], step: int) -> dict[str, str]:
        """Tables and figures as artifacts, the best as metrics of `step`; returns tags that name it."""
        from digitlab.results import figures, page, summary

        metric, folder = self.manifest.settings.sweep.metric, self.artifacts
        (folder / names.TRIALS_FILE).write_text(summary.as_csv(results), "utf-8")
        (folder / names.SUMMARY_FILE).write_text(summary.as_markdown(results, metric), "utf-8")
        ranked = summary.rank(results, metric)
        if not ranked:
            return {}
        figures.draw_parallel_coordinates(results, metric, folder / names.PARALLEL_PICTURE)
        figures.draw_importance(results, metric, folder / names.IMPORTANCE_PICTURE)
        figures.draw_learning_curves(results, metric, folder / names.CURVES_PICTURE)
        page.write_page(results, metric, folder / names.SWEEP_PAGE)
        best = ranked[0].trials[0]
        found = {k: v for k, v in best.metrics.items() if k.startswith(("chosen/", "test/"))}
        self._record.log_metrics({f"{names.BEST_METRIC}{k}": v for k, v in found.items()}, step=step)
        return {names.BEST_TRIAL_TAG: best.name, names.BEST_RUN_TAG: best.run_id or ""}

    def finish(self, status: Status, tags: Mapping[str, str]) -> None:
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
