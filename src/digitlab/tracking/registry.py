"""MLflow's model registry: a run's model under a name, in versions, with aliases."""

import re
from pathlib import Path
from typing import Any

from digitlab.errors import UsageError
from digitlab.text.addresses import with_secrets
from digitlab.tracking.connection.client import open_client
from digitlab.tracking.connection.environment import sent_once
from digitlab.tracking.connection.plainly import plain_errors
from digitlab.tracking.connection.relocation import present_address
from digitlab.tracking.names import MODEL_FOLDER
from digitlab.tracking.stored_run import StoredRun

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._ -]{0,99}")
ALIAS = re.compile(r"[A-Za-z][A-Za-z0-9._-]{0,99}")
VERSION_LIKE = re.compile(r"v[0-9]+|latest", re.IGNORECASE)  # MLflow keeps these for itself


def is_registered_name(reference: str) -> bool:
    """Whether `NAME@alias` or `NAME/VERSION` is meant, not a run."""
    return "@" in reference or "/" in reference


def check_name(name: str, alias: str | None) -> None:
    """Raises UsageError for what cannot be a model's name or alias."""
    if not NAME.fullmatch(name):
        raise UsageError(
            "a model's name is up to 100 letters, digits, spaces and ._- that begin with a letter or a "
            f"digit, got {name!r}"
        )
    if alias is not None and (not ALIAS.fullmatch(alias) or VERSION_LIKE.fullmatch(alias)):
        raise UsageError(
            "an alias is up to 100 letters, digits and ._- that begin with a letter, and neither "
            f"`latest` nor like `v1`, got {alias!r}"
        )


class Registry:
    """The registry of one tracking URI. Opening it imports mlflow (3 s)."""

    def __init__(self, uri: str) -> None:
        self._uri = uri
        self._client = open_client(uri)

    def register(self, run: StoredRun, name: str, alias: str | None) -> tuple[str, str | None]:
        """The model in the run's artifact folder `model`, under its version, the same if repeated.

        Returns:
            The version, and that which had the alias before, None if there was none.
        """
        from mlflow.exceptions import MlflowException

        with plain_errors(self._uri):
            try:
                self._client.create_registered_model(name)
            except MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise
            known = self._client.search_model_versions(f"name = '{name}'")
            there = [version for version in known if version.run_id == run.run_id]
            made = there[0] if there else self._create(run, name)
            before = None
            if alias is not None:
                aliases = self._client.get_registered_model(name).aliases
                before = aliases.get(alias)
                self._client.set_registered_model_alias(name, alias, made.version)
        return str(made.version), before if before is None else str(before)

    def download(self, reference: str, folder: Path) -> tuple[Path, str]:
        """The model's folder of `NAME@alias` or `NAME/VERSION`, and the id of its run.

        Raises:
            UsageError: there is none.
        """
        version = self._version(reference)
        from mlflow.artifacts import download_artifacts

        with plain_errors(self._uri):
            # Not models:/..., which asks the registry of this process and not that of self._uri.
            source = self._client.get_model_version_download_uri(version.name, version.version)
            path = download_artifacts(
                artifact_uri=present_address(self._uri, source),
                dst_path=str(folder),
                tracking_uri=with_secrets(self._uri),
            )
        return Path(path), str(version.run_id or "")

    def run_id(self, reference: str) -> str:
        """Of the run that trained it. Raises UsageError: no such model, or none that a run left."""
        run_id = self._version(reference).run_id
        if not run_id:
            raise UsageError(f"the model {reference} came of no run in {self._uri}")
        return str(run_id)

    def models_of_runs(self) -> dict[str, str]:
        """By run id, a version that came of it: `NAME/VERSION`."""
        with plain_errors(self._uri):
            versions = self._client.search_model_versions()
        return {str(v.run_id): f"{v.name}/{v.version}" for v in versions if v.run_id}

    def names_of(self, name: str) -> list[str]:
        """How the versions of a registered model can be asked for; empty if there is no such model."""
        return [known for known in self._names() if known.partition("@")[0].partition("/")[0] == name]

    def _create(self, run: StoredRun, name: str) -> Any:
        source = f"{run.artifact_uri}/{MODEL_FOLDER}"
        with sent_once():
            return self._client.create_model_version(
                name, source=source, run_id=run.run_id, description=run.name
            )

    def _version(self, reference: str) -> Any:
        from mlflow.exceptions import MlflowException

        name, at, alias = reference.partition("@")
        if not at:
            name, _, number = reference.partition("/")
        try:
            if at:
                return self._client.get_model_version_by_alias(name, alias)
            return self._client.get_model_version(name, number)
        except MlflowException as error:
            if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                with plain_errors(self._uri):
                    raise
            names = self._names()
        there = (
            f"there are {', '.join(names)}"
            if names
            else "there is none yet: `digitlab promote RUN NAME`"
        )
        raise UsageError(f"no model {reference} in {self._uri}; {there}")

    def _names(self) -> list[str]:
        """Every name with its aliases, else its last version, as they can be asked for."""
        names = []
        with plain_errors(self._uri):
            for model in self._client.search_registered_models(max_results=20):
                aliases = [f"{model.name}@{alias}" for alias in sorted(model.aliases)]
                versions = [version.version for version in model.latest_versions]
                names += aliases or [f"{model.name}/{version}" for version in versions]
        return names
