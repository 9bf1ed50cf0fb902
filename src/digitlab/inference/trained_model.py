"""Which trained model is meant, and the model itself: of a run, of a sweep's best, of the registry."""

import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import yaml
from safetensors import SafetensorError

from digitlab.errors import DeletedError, DigitlabError, UsageError
from digitlab.models.saved import CONFIG_FILE, WEIGHTS_FILE, Classifier, load_classifier, weights_digest
from digitlab.models.signature import MODEL_FILE, Signature, dump, of_earlier
from digitlab.sweep.lookup import choose
from digitlab.tracking.names import BEST_RUN_TAG, WEIGHTS_TAG
from digitlab.tracking.registry import Registry, is_registered_name
from digitlab.tracking.store import RunStore
from digitlab.tracking.stored_run import StoredRun

PAYLOAD = "data/payload"  # of a model in MLflow's format


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainedModel:
    """name: for people. run_id: that trained it, "" where the registry does not say."""

    name: str
    run_id: str
    classifier: Classifier

    @property
    def data_name(self) -> str:
        return self.classifier.config.data.name

    @property
    def signature(self) -> Signature:
        return self.classifier.signature


def find_run(store: RunStore, reference: str) -> StoredRun:
    """A run by its id, or a sweep's best trial by validation.

    Raises:
        UsageError: there is none, or it is a study.
    """
    chosen = choose(store, reference)
    if chosen.kind == "study":
        raise UsageError(
            f"{reference} is a study of {len(chosen.runs)} runs: name one of them "
            f"(`digitlab compare {reference}` ranks them), or a sweep, for its best"
        )
    if chosen.own_run is None:
        return chosen.runs[0]
    best = chosen.own_run.tags.get(BEST_RUN_TAG)
    if not best:
        raise UsageError(
            f"the sweep {chosen.name!r} has no best trial: `digitlab sweeps` says how far it is"
        )
    return store.find(best)


def load_model(store: RunStore, reference: str) -> TrainedModel:
    """A run, a sweep, `NAME@alias` or `NAME/VERSION`, ready to predict.

    Raises:
        UsageError: there is no such model, or its run has left no weights.
        DigitlabError: the model is damaged, or another than its run recorded.
    """
    with tempfile.TemporaryDirectory() as scratch:
        if is_registered_name(reference):
            folder, run_id = Registry(store.uri).download(reference, Path(scratch))
            classifier = _loaded(folder / PAYLOAD, reference)
            with suppress(UsageError, DeletedError):  # the run may have been deleted since
                _check_weights(classifier, store.find(run_id))
            return TrainedModel(name=reference, run_id=run_id, classifier=classifier)
        try:
            run = find_run(store, reference)
        except UsageError as error:
            if names := Registry(store.uri).names_of(reference):
                which = " or ".join(names)
                raise UsageError(f"{reference} is a registered model: say which, {which}") from None
            raise error from None
        download_model(store, run, Path(scratch))
        name = f"{run.name} ({run.short_id})"
        classifier = _loaded(Path(scratch), f"run {run.short_id}")
        _check_weights(classifier, run)
        return TrainedModel(name=name, run_id=run.run_id, classifier=classifier)


def _loaded(folder: Path, whose: str) -> Classifier:
    try:
        return load_classifier(folder)
    except UsageError as error:  # its configuration is none of today, or of another environment
        raise DigitlabError(f"the model of {whose} cannot be built here: {error}") from None
    except (SafetensorError, yaml.YAMLError, RuntimeError, OSError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DigitlabError(f"the model of {whose} is damaged: {reason}") from None


def _check_weights(classifier: Classifier, run: StoredRun) -> None:
    recorded = run.tags.get(WEIGHTS_TAG)
    if recorded not in (None, weights_digest(classifier.model.state_dict())):
        raise DigitlabError(f"the weights of run {run.short_id} are not those that it recorded")


def download_model(store: RunStore, run: StoredRun, folder: Path) -> None:
    """Weights, configuration and signature into `folder`. Raises UsageError if there are no weights.

    A run of an earlier digitlab has no signature, and takes what it took.
    """
    found = store.contents(run, [WEIGHTS_FILE, CONFIG_FILE, MODEL_FILE])
    (folder / MODEL_FILE).write_text(dump(of_earlier(run.params["data.name"])))
    for name in (WEIGHTS_FILE, CONFIG_FILE):
        if name not in found:
            raise UsageError(f"run {run.short_id} is {run.status}: it has left no {name}")
    for name, content in found.items():
        (folder / name).write_bytes(content)
