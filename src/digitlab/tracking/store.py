"""Runs in an MLflow tracking store: searched for and read.

Uses MlflowClient with explicit experiment and run ids only; nothing here knows of an active run.
"""

import tempfile
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from digitlab.errors import UsageError
from digitlab.tracking.connection.client import open_client
from digitlab.tracking.connection.location import sqlite_file
from digitlab.tracking.connection.plainly import deleted_run, plain_errors
from digitlab.tracking.connection.relocation import present_address, repository, update_addresses
from digitlab.tracking.connection.sqlite_store import ensure_store
from digitlab.tracking.names import ERROR_TAG, FINGERPRINT_TAG
from digitlab.tracking.run_folder import RunFolder, now
from digitlab.tracking.stored_run import (
    NEWEST_FIRST,
    PAGE_RUNS,
    AmbiguousRun,
    StoredRun,
    age,
    check_prefix,
)
from digitlab.tracking.upload import Upload
from digitlab.tracking.views import View, tag_name, view_tag

MAX_MATCHES = 20  # of an id that several runs start with


class RunStore:
    """The runs of one tracking URI. Its first use imports mlflow (3 s); only `deliver` creates a store.

    Every method raises TrackingError when the store does not do what it is asked.
    """

    def __init__(self, uri: str) -> None:
        self.uri = uri

    @cached_property
    def _client(self) -> Any:
        return open_client(self.uri)

    @cached_property
    def _upload(self) -> Upload:
        file = sqlite_file(self.uri)
        if file:
            ensure_store(file)
        upload = Upload(self._client, self.uri)
        if file:
            with plain_errors(self.uri):
                update_addresses(file)
        return upload

    def deliver(self, record: RunFolder) -> None:
        """Bring the store up to date with a record; may be repeated after any interruption.

        A run that has ended is closed in the store and its record deleted, unless it can be continued.
        """
        self._upload.deliver(record)

    def runs(
        self, study: str | None = None, *, limit: int = 1000, search_filter: str = ""
    ) -> list[StoredRun]:
        """The newest runs of a study, or of all studies. The filter in MLflow's syntax.

        Raises:
            UsageError: there is no such study.
        """
        return self.search(study, search_filter, limit=limit)[0]

    def search(
        self,
        study: str | None,
        search_filter: str,
        *,
        order: str = NEWEST_FIRST,
        limit: int = PAGE_RUNS,
        page: str = "",
    ) -> tuple[list[StoredRun], str]:
        """At most `limit` runs of a study, or of all, and the name of the next page, or "".

        Raises:
            UsageError: there is no such study.
        """
        with plain_errors(self.uri):
            experiments = {
                experiment.experiment_id: experiment.name
                for experiment in self._client.search_experiments()
                if study in (None, experiment.name)
            }
            if study is not None and not experiments:
                names = self.studies()
                there = f"there are: {', '.join(names)}" if names else "there is none yet"
                raise UsageError(f"no study {study!r} in {self.uri}; {there}")
            matches = self._client.search_runs(
                list(experiments),
                search_filter,
                order_by=[order],
                max_results=limit,
                page_token=page or None,
            )
        runs = [self._stored(run, experiments[run.info.experiment_id]) for run in matches]
        return runs, matches.token or ""

    def removed_runs(self) -> list[StoredRun]:
        """Those that were deleted and can be restored, of deleted studies too, newest first."""
        from mlflow.entities import ViewType

        runs, page = list[StoredRun](), ""
        with plain_errors(self.uri):
            known = self._client.search_experiments(ViewType.ALL)
            studies = {experiment.experiment_id: experiment.name for experiment in known}
            while True:
                matches = self._client.search_runs(
                    [*studies],
                    "",
                    ViewType.DELETED_ONLY,
                    PAGE_RUNS,
                    order_by=[NEWEST_FIRST],
                    page_token=page or None,
                )
                runs += [self._stored(run, studies[run.info.experiment_id]) for run in matches]
                if not (page := matches.token or ""):
                    return runs

    def running(self) -> list[StoredRun]:
        """The runs of all studies that have not ended, as far as the store knows."""
        return self.runs(search_filter="attributes.status = 'RUNNING'")

    def find(self, prefix: str) -> StoredRun:
        """The run whose id starts with `prefix`.

        Raises:
            UsageError: there is none.
            AmbiguousRun: there are several.
            DeletedError: there was one.
        """
        check_prefix(prefix)
        starts_so = f"attributes.run_id LIKE '{prefix}%'"
        matches = self.runs(search_filter=starts_so, limit=MAX_MATCHES)
        if not matches:
            self._raise_if_deleted(starts_so)
            raise UsageError(f"no run {prefix} in {self.uri}: `digitlab runs` lists them")
        if len(matches) > 1:
            lines = [f"  {run.run_id[:12]}  {run.name}  ({age(run.start_time)} ago)" for run in matches]
            many = "or more " * (len(matches) == MAX_MATCHES)
            problem = f"{prefix} is the start of {len(matches)} {many}runs: give more of it"
            raise AmbiguousRun("\n".join([problem, *lines]))
        return matches[0]

    def with_tag(self, name: str, value: str) -> StoredRun | None:
        """The newest run that has the tag, in any study. Raises DeletedError if it was deleted."""
        has_tag = f"tags.`{name}` = '{value}'"
        matches = self.runs(search_filter=has_tag, limit=1)
        if not matches:
            self._raise_if_deleted(has_tag)
            return None
        return matches[0]

    def check_not_deleted(self, run_ids: Sequence[str]) -> None:
        """Raises DeletedError if nothing can be delivered to one of them any more."""
        for run_id in run_ids:
            self._raise_if_deleted(f"attributes.run_id = '{run_id}'")

    def _raise_if_deleted(self, search_filter: str) -> None:
        from mlflow.entities import ViewType

        with plain_errors(self.uri):
            experiments = self._client.search_experiments(ViewType.ALL)
            ids = [experiment.experiment_id for experiment in experiments]
            matches = self._client.search_runs(ids, search_filter, ViewType.DELETED_ONLY, max_results=1)
            if matches:
                raise deleted_run(matches[0].info.run_id, self.uri)

    def finished(self, study: str, page: str = "") -> tuple[list[StoredRun], str]:
        """A study's FINISHED runs that have a fingerprint, oldest first; none of an unknown study.

        At most a page of them, and the name of the next page, empty after the last.
        """
        is_finished = f"attributes.status = 'FINISHED' AND tags.`{FINGERPRINT_TAG}` != ''"
        return self.page(study, is_finished, page)

    def all_runs(self, study: str, search_filter: str = "") -> list[StoredRun]:
        """Every run of a study, oldest first; none of an unknown one. The filter in MLflow's syntax."""
        runs, page = self.page(study, search_filter, "")
        while page:
            more, page = self.page(study, search_filter, page)
            runs += more
        return runs

    def page(self, study: str, search_filter: str = "", page: str = "") -> tuple[list[StoredRun], str]:
        """At most PAGE_RUNS runs of a study, oldest first, and the name of the next page, or ""."""
        with plain_errors(self.uri):
            experiment = self._client.get_experiment_by_name(study)
            if experiment is None:
                return [], ""
            runs = self._client.search_runs(
                [experiment.experiment_id],
                filter_string=search_filter,
                order_by=["attributes.start_time ASC"],
                max_results=PAGE_RUNS,
                page_token=page or None,
            )
        return [self._stored(run, study) for run in runs], runs.token or ""

    def set_view(self, experiment_id: str, key: str, view: View) -> None:
        """Keep a ready-made view, which a link with its key opens."""
        with plain_errors(self.uri):
            self._client.set_experiment_tag(experiment_id, tag_name(key), view_tag(view))

    def set_tag(self, run_id: str, name: str, value: str) -> None:
        with plain_errors(self.uri):
            self._client.set_tag(run_id, name, value)

    def annotate(self, run: StoredRun, name: str, value: str) -> None:
        """Set a tag; without a value remove it, if the run has it."""
        with plain_errors(self.uri):
            if value:
                self._client.set_tag(run.run_id, name, value)
            elif name in run.tags:
                self._client.delete_tag(run.run_id, name)

    def artifacts(self, run: StoredRun) -> list[tuple[str, int]]:
        """Path and size in bytes of every artifact."""

        def walk(folder: str | None) -> Iterator[tuple[str, int]]:
            for item in stored.list_artifacts(folder):
                if item.is_dir:
                    yield from walk(item.path)
                else:
                    yield item.path, item.file_size or 0

        with plain_errors(self.uri):
            stored = repository(self.uri, run.artifact_uri)
            return sorted(walk(None))

    def history(self, run: StoredRun, metric: str) -> list[tuple[int, float]]:
        """Step and value of one metric over a run."""
        with plain_errors(self.uri):
            points = self._client.get_metric_history(run.run_id, metric)
        return sorted({(point.step, point.value) for point in points})

    def contents(self, run: StoredRun, artifacts: Sequence[str]) -> dict[str, bytes]:
        """Of those of these artifacts, none of them in a folder, that the run has."""
        with plain_errors(self.uri), tempfile.TemporaryDirectory() as scratch:
            stored = repository(self.uri, run.artifact_uri)
            there = {item.path for item in stored.list_artifacts(None)}
            return {
                name: Path(stored.download_artifacts(name, scratch)).read_bytes()
                for name in artifacts
                if name in there
            }

    def content(self, run: StoredRun, artifact: str) -> bytes:
        """Raises UsageError if the run has no such artifact."""
        try:
            return self.contents(run, [artifact])[artifact]
        except KeyError:
            raise UsageError(f"run {run.short_id} is {run.status}: it has left no {artifact}") from None

    def add_artifacts(self, run: StoredRun, folder: Path) -> None:
        """Add the files in `folder` to a run."""
        with plain_errors(self.uri):
            repository(self.uri, run.artifact_uri).log_artifacts(str(folder))

    def mark_killed(self, run: StoredRun, reason: str) -> None:
        """End a run whose process is gone."""
        with plain_errors(self.uri):
            self._client.set_tag(run.run_id, ERROR_TAG, reason)
            self._client.set_terminated(run.run_id, "KILLED", end_time=max(now(), run.start_time))

    def studies(self) -> list[str]:
        with plain_errors(self.uri):
            return [e.name for e in self._client.search_experiments() if e.name != "Default"]

    def experiment_id(self, study: str) -> str | None:
        with plain_errors(self.uri):
            experiment = self._client.get_experiment_by_name(study)
        return experiment.experiment_id if experiment else None

    def _stored(self, run: Any, study: str) -> StoredRun:
        return StoredRun(
            run_id=run.info.run_id,
            experiment_id=run.info.experiment_id,
            study=study,
            name=run.info.run_name,
            status=run.info.status,
            start_time=run.info.start_time,
            end_time=run.info.end_time,
            params=dict(run.data.params),
            metrics=dict(run.data.metrics),
            tags=dict(run.data.tags),
            artifact_uri=present_address(self.uri, run.info.artifact_uri),
        )
