"""A record brought to an MLflow tracking store: study, run, values, artifacts, end.

Uses MlflowClient with explicit experiment and run ids only; nothing here knows of an active run.
"""

import dataclasses
import os
import re
import shlex
from typing import Any

from digitlab.errors import TrackingError
from digitlab.tracking.connection.environment import sent_once
from digitlab.tracking.connection.location import artifact_location
from digitlab.tracking.connection.plainly import deleted_run, deleted_study, plain_errors
from digitlab.tracking.connection.relocation import repository
from digitlab.tracking.names import (
    ERROR_TAG,
    NOTE_TAG,
    PARENT_TAG,
    PROCESS_TAG,
    RECORD_TAG,
    TRACEBACK_FILE,
    USER_TAG,
)
from digitlab.tracking.run_folder import Run, RunFolder
from digitlab.tracking.stored_run import OWN_ID, SHORT_ID
from digitlab.tracking.views import KEY, STUDY_VIEW, tag_name, view_tag

METRICS_PER_REQUEST = 800  # MLflow takes 1,000 values: room for knobs and tags
TAG_LIMIT = 8000  # characters; MLflow refuses longer ones
RACE_ATTEMPTS = 10


class Upload:
    """client: an MlflowClient of the store at `uri`. Raises TrackingError if the store refuses."""

    def __init__(self, client: Any, uri: str) -> None:
        self._client, self._uri = client, uri
        self._experiment_ids: dict[str, str] = {}  # of studies
        self._run_ids: dict[str, str] = {}  # of records that others refer to
        # Tags that the store has, of runs that are created and not closed yet.
        self._tags: dict[str, dict[str, str]] = {}

    def deliver(self, record: RunFolder) -> None:
        """Bring the store up to date with a record; may be repeated after any interruption.

        A run that has ended is closed in the store and its record deleted, unless it can be continued.
        """
        has_ended = record.run.status != "RUNNING"
        with plain_errors(self._uri):
            run_id = self._ensure_run(record)
            if record.delivered.is_stale:
                self._reopen(record, run_id)
            self._deliver_values(record, run_id)
            if has_ended:
                self._close(record, run_id)
        if record.run.status in ("KILLED", "FAILED") and record.run.is_resumable:
            record.delivered.is_closed = True
            record.save_delivered()
        elif has_ended:
            record.delete()

    def _ensure_experiment(self, study: str) -> str:
        """Get or create, right also when several processes do so at once.

        mlflow.set_experiment would file the losers' runs under "Default" without a word.
        """
        from mlflow.exceptions import MlflowException

        experiment = self._client.get_experiment_by_name(study)
        if experiment is None:
            folder = artifact_location(self._uri)
            slug = re.sub(r"[^A-Za-z0-9._-]+", "-", study).strip("-.") or "study"
            location = (folder / slug).as_uri() if folder else None
            try:
                tags = {tag_name(KEY): view_tag(STUDY_VIEW), NOTE_TAG: _note(study)}
                created = self._client.create_experiment(study, artifact_location=location, tags=tags)
                return str(created)
            except MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise
                experiment = self._client.get_experiment_by_name(study)
        assert experiment is not None, "it exists already"
        if experiment.lifecycle_stage == "deleted":
            raise deleted_study(study, self._uri)
        return str(experiment.experiment_id)

    def _ensure_run(self, record: RunFolder) -> str:
        """The run of a record, created at the first call."""
        delivered, run = record.delivered, record.run
        if delivered.run_id is None or delivered.experiment_id is None:
            experiment_id = self._known_experiment(run.study)
            earlier: list[Any] = []
            if record.is_new_to_the_store:
                record.save_delivered()  # from now on a run may be there
            else:
                earlier = self._client.search_runs(
                    [experiment_id], filter_string=f"tags.`{RECORD_TAG}` = '{run.record_id}'"
                )
            created = earlier[0] if earlier else self._create_run(experiment_id, run)
            delivered.is_stale = bool(earlier)
            delivered.experiment_id = created.info.experiment_id
            delivered.run_id, delivered.artifact_uri = created.info.run_id, created.info.artifact_uri
            record.save_delivered()
        return delivered.run_id

    def _known_experiment(self, study: str) -> str:
        """Asked for once: whether it was deleted meanwhile shows when a run is created in it."""
        if study not in self._experiment_ids:
            self._experiment_ids[study] = self._ensure_experiment(study)
        return self._experiment_ids[study]

    def _create_run(self, experiment_id: str, run: Run) -> Any:
        from mlflow.exceptions import MlflowException

        tags = {RECORD_TAG: run.record_id, **run.tags, **_process_tags(run)}
        if user := os.environ.get("MLFLOW_TRACKING_USERNAME"):
            tags[USER_TAG] = user
        if run.parent:
            tags[PARENT_TAG] = self._run_id_of(experiment_id, run.parent)
        tags = _fitting(tags)
        try:
            with sent_once():
                created = self._client.create_run(
                    experiment_id, start_time=run.start_time, tags=tags, run_name=run.name
                )
        except MlflowException:
            del self._experiment_ids[run.study]
            self._ensure_experiment(run.study)  # says so if it was deleted
            raise
        self._tags[created.info.run_id] = tags
        return created

    def _run_id_of(self, experiment_id: str, record_id: str) -> str:
        """The run that a record was delivered as."""
        if record_id not in self._run_ids:
            matches = self._client.search_runs(
                [experiment_id], filter_string=f"tags.`{RECORD_TAG}` = '{record_id}'", max_results=1
            )
            if not matches:
                self._raise_if_deleted(experiment_id, record_id)
                raise TrackingError(f"the sweep {record_id} has not been delivered to {self._uri} yet")
            self._run_ids[record_id] = matches[0].info.run_id
        return self._run_ids[record_id]

    def _raise_if_deleted(self, experiment_id: str, record_id: str) -> None:
        from mlflow.entities import ViewType

        of_record = f"tags.`{RECORD_TAG}` = '{record_id}'"
        deleted = self._client.search_runs([experiment_id], of_record, ViewType.DELETED_ONLY)
        if deleted:
            raise deleted_run(deleted[0].info.run_id, self._uri)

    def _reopen(self, record: RunFolder, run_id: str) -> None:
        """A run that was cut short goes on, in another process."""
        from mlflow.entities import RunTag

        self._tags.pop(run_id, None)
        tags = [RunTag(key, value) for key, value in _process_tags(record.run).items()]
        self._client.log_batch(run_id, tags=tags)
        run = self._client.get_run(run_id)
        if ERROR_TAG in run.data.tags:
            stored = repository(self._uri, run.info.artifact_uri)
            if any(item.path == TRACEBACK_FILE for item in stored.list_artifacts(None)):
                stored.delete_artifacts(TRACEBACK_FILE)
            self._client.delete_tag(run_id, ERROR_TAG)
        self._client.update_run(run_id, status="RUNNING")
        record.delivered.is_stale = False
        record.save_delivered()

    def _deliver_values(self, record: RunFolder, run_id: str) -> None:
        """All epochs that the store does not have yet, in one request if there are not too many.

        With the knobs, until it is known that the store has them, and at the end with the last tags.
        """
        from mlflow.entities import Metric, Param, RunTag

        has_ended = record.run.status != "RUNNING"
        lines = record.metric_lines()
        fresh = lines[record.delivered.num_metric_lines :]
        metrics = [
            Metric(name, value, line["time"], line["step"])
            for line in fresh
            for name, value in line["metrics"].items()
        ]
        is_first = record.delivered.num_metric_lines == 0
        params = [Param(key, value) for key, value in record.run.params.items() if is_first]
        known, own_id = self._tags.get(run_id, {}), run_id[:SHORT_ID]
        last = {key: value.replace(OWN_ID, own_id) for key, value in _fitting(record.run.tags).items()}
        tags = [RunTag(*tag) for tag in last.items() if has_ended and known.get(tag[0]) != tag[1]]
        for start in range(0, max(len(metrics), 1), METRICS_PER_REQUEST):
            batch = metrics[start : start + METRICS_PER_REQUEST]
            if batch or params or tags:
                self._client.log_batch(run_id, metrics=batch, params=params, tags=tags)
            params, tags = [], []
        if fresh:
            record.delivered.num_metric_lines = len(lines)
            record.save_delivered()

    def _close(self, record: RunFolder, run_id: str) -> None:
        """Data set and artifacts; the status last, so that FINISHED means complete."""
        run = record.run
        if run.dataset:
            self._log_dataset(run_id, run.dataset)
        record.remove_remains()
        if any(record.artifacts.iterdir()):
            address = record.delivered.artifact_uri or self._client.get_run(run_id).info.artifact_uri
            repository(self._uri, address).log_artifacts(str(record.artifacts))
        self._client.set_terminated(run_id, run.status, end_time=run.end_time)
        self._tags.pop(run_id, None)

    def _log_dataset(self, run_id: str, dataset: dict[str, str]) -> None:
        """MLflow looks a data set up and then inserts it; of processes doing so at once all but one
        fail on its unique key, and succeed when they look again."""
        from mlflow.entities import Dataset, DatasetInput, InputTag
        from mlflow.exceptions import MlflowException

        tags = [InputTag("mlflow.data.context", "training")]
        for attempt in range(RACE_ATTEMPTS):
            try:
                self._client.log_inputs(run_id, datasets=[DatasetInput(Dataset(**dataset), tags)])
                return
            except MlflowException as error:
                if "unique" not in str(error).lower() or attempt + 1 == RACE_ATTEMPTS:
                    raise


def _note(study: str) -> str:
    """A study's description."""
    name = shlex.quote(study)
    return (  # MLflow shows the first line
        f"In a shell: `digitlab compare {name}` says which differences are real, "
        f"`digitlab report {name}` writes a page to hand on.\n\n"
        f"The view “{STUDY_VIEW.name}” (menu Views) sorts by validation accuracy and charts what "
        "matters.\n"
    )


def _process_tags(run: Run) -> dict[str, str]:
    return {f"{PROCESS_TAG}{k}": str(v) for k, v in dataclasses.asdict(run.process).items()}


def _fitting(tags: dict[str, str]) -> dict[str, str]:
    """Tags within MLflow's limit; what is cut stands in full in record.json."""
    return {
        key: value if len(value) <= TAG_LIMIT else value[: TAG_LIMIT - 1] + "…"
        for key, value in tags.items()
    }
