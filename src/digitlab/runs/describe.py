"""A run before it trains: the request for it, its document, and the folder that it begins with.

A run that is killed in its first step is described as fully as one that has finished.
"""

import dataclasses
import hashlib
import json
import re
from collections.abc import Callable, Mapping
from typing import Any

import torch

from digitlab.config import project
from digitlab.config.checking import as_param, flatten, recorded_config, to_dict
from digitlab.config.components import lookup
from digitlab.config.components.source import digests
from digitlab.config.fingerprint import (
    WITHOUT_EFFECT,
    code_digest,
    fingerprint,
    own_source,
    source_digest,
    source_files,
)
from digitlab.config.schema import Config, of_sizes
from digitlab.data.splits import Dataset, load
from digitlab.errors import ConfigError, UsageError
from digitlab.runs import document as documents
from digitlab.runs import provenance
from digitlab.runs.document import Code, Document, Source
from digitlab.tracking import names, process
from digitlab.tracking.connection.location import resolve_uri
from digitlab.tracking.delivery import check_before_training
from digitlab.tracking.run_folder import Membership, RunFolder
from digitlab.tracking.stored_run import OWN_ID
from digitlab.training import arithmetic
from digitlab.training.devices import prepare_process

UNPLAIN = re.compile(r"[^A-Za-z0-9_./ -]")  # what no key of a document may hold
DIGEST_LENGTH = 36  # MLflow's limit for a data set's digest


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A run as it is asked for, described once, before its first step.

    tags: further ones for the run. member: its place in a sweep; a run of that name that was cut short
    is continued. continued: a run by itself that was cut short, to go on with instead of a new one.
    """

    config: Config
    dataset: Dataset
    document: Document
    tags: Mapping[str, str] = dataclasses.field(default_factory=dict)
    member: Membership | None = None
    continued: RunFolder | None = None

    @property
    def tracking_uri(self) -> str:
        return self.member.tracking_uri if self.member else resolve_uri(self.config.tracking.uri)


def request_run(
    config: Config,
    *,
    say: Callable[[str], None],
    command: str | None = None,
    tags: Mapping[str, str] | None = None,
    continued: RunFolder | None = None,
) -> Request:
    """A run by itself. Sets this process up for it, checks its store and loads its data.

    command: the one that asked for the run; by default that of this process.

    Raises:
        ConfigError: the device is missing, or the data have too few images. DataError: they are missing
        or wrong. TrackingError, DigitlabError: what the run leaves could not be written or delivered.
    """
    uri = continued.run.tracking_uri if continued else resolve_uri(config.tracking.uri)
    check_before_training(uri, config.study, [continued] if continued else [])
    device = prepare_process(config)
    if reason := provenance.unreadable_checkout():
        say(reason)
    dataset = load(config.data, say=say)
    if problems := of_sizes(config, len(dataset.train) + len(dataset.validation or ())):
        raise ConfigError(problems)
    document = describe_run(config, dataset, device, command=command or provenance.command_line())
    return Request(
        config=config, dataset=dataset, document=document, tags=tags or {}, continued=continued
    )


def describe_run(config: Config, dataset: Dataset, device: torch.device, *, command: str) -> Document:
    """Everything that the result depends on, as it is now in this process."""
    values = to_dict(config)
    code, patch = provenance.code(), provenance.patch()
    return Document(
        format=documents.FORMAT.latest,
        command=command,
        config=values,
        config_sha256=documents.config_digest(values),
        seed=config.seed,
        code=Code(
            version=provenance.versions()["digitlab"],
            commit=code["commit"],
            dirty=code["dirty"],
            patch=hashlib.sha256(patch.encode()).hexdigest() if patch else None,
            source=source_digest(),
            files=source_files(),
        ),
        components=_components(values),
        data=dataset.digests,
        device="cuda" if device.type == "cuda" else "cpu",
        threads=config.threads,
        arithmetic=arithmetic.describe(threads=config.threads, device=device.type),
        canary=arithmetic.canary(threads=config.threads, device=device.type),
        versions=provenance.versions(),
        machine=arithmetic.machine(),
        reproducible=True,
        trace=None,
        image_shape=list(dataset.image_shape),
        num_classes=dataset.num_classes,
    )


def _components(config: Mapping[str, Any]) -> dict[str, Source]:
    """The user's own components that a configuration names, by group."""
    return {
        group: Source(
            name=component.name,
            distribution=component.origin.distribution,
            version=component.origin.version,
            files={UNPLAIN.sub("_", f): d for f, d in digests(component.files).items()},
        )
        for group, component in lookup.chosen(config).items()
    }


def has_code_of_today(document: Document, tags: Mapping[str, str]) -> bool:
    """Whether today's code does what the recorded run's did, though comments may differ.

    tags: the run's; a document names the bytes of files, the fingerprint what they do.
    """
    recorded = recorded_config(document.config)
    today = fingerprint(recorded, device=document.device, data=document.data)
    return tags.get(names.FINGERPRINT_TAG) == today


def identity(document: Document) -> dict[str, str]:
    """What must be equal for a checkpoint to be continued to the same bits."""
    knobs = {k: v for k, v in flatten(document.config).items() if k not in WITHOUT_EFFECT}
    return {
        "configuration": documents.config_digest(knobs),
        "data": json.dumps(document.data, sort_keys=True),
        "source": code_digest(),
        "arithmetic": document.canary,
        **{f"source of {group}": digest for group, digest in own_source(document.config).items()},
    }


def open_folder(request: Request) -> RunFolder:
    """The folder of the run: a new one, or that of one that was cut short and is to go on.

    Raises:
        UsageError: another process works on the run that is to go on.
    """
    tags = request.tags
    if request.continued:
        if (folder := RunFolder.reopen(request.continued.folder)) is None:
            name = request.continued.run.name
            raise UsageError(f"{name!r} is being worked on by another process, or has just ended")
        if not request.document.reproducible:
            # No sweep must take its result for that of the same knobs.
            folder.run.tags |= {names.REPRODUCIBLE_TAG: "false", names.FINGERPRINT_TAG: ""}
        return folder
    member = request.member
    if member and (folder := RunFolder.reopen(project.records() / member.record_id)):
        before, now = folder.run.tags.get(names.ENGINE_TAG, ""), tags.get(names.ENGINE_TAG, "")
        if before != now:
            folder.run.tags[names.ENGINE_TAG] = f"{before}; then {now}" if before else now
        return folder
    return _new_folder(request)


def _new_folder(request: Request) -> RunFolder:
    config, document, member = request.config, request.document, request.member
    tags = request.tags
    return RunFolder.create(
        project.records(),
        study=config.study,
        record_id=member.record_id if member else None,
        parent=member.sweep if member else None,
        is_resumable=True,
        name=_kind(tags) + (member.name if member else run_name(config)),
        tracking_uri=request.tracking_uri,
        params=params_of(document),
        tags={
            **tags_of(document),
            names.FINGERPRINT_TAG: fingerprint(config, device=document.device, data=document.data),
            names.NOTE_TAG: note(document.command, tags),
            **(member.tags if member else {}),
            **tags,
        },
        dataset=_describe_data(request.dataset),
        process=process.this_process(),
    )


def params_of(document: Document) -> dict[str, str]:
    """All knobs by their paths."""
    return {path: as_param(value) for path, value in flatten(document.config).items()}


def tags_of(document: Document) -> dict[str, str]:
    """What the document says of its run, as tags."""
    code = document.code
    return {
        names.VERSION_TAG: code.version,
        names.COMMIT_TAG: code.commit,
        names.DIRTY_TAG: code.dirty,
        names.COMMAND_TAG: document.command,
        names.HOST_TAG: document.machine["host"],
        names.DEVICE_TAG: document.device,
        names.CONFIG_TAG: document.config_sha256,
        names.SOURCE_TAG: code.source,
        names.CANARY_TAG: document.canary,
        names.SOURCE_NAME_TAG: "digitlab",
        names.SOURCE_TYPE_TAG: "LOCAL",
        names.SOURCE_COMMIT_TAG: code.commit,
        **{f"{names.DATA_TAG}{name}": digest for name, digest in document.data.items()},
    }


def run_name(config: Config) -> str:
    """`cnn adam lr=0.001 seed=0`, unless the configuration names the run."""
    optimizer = config.optimizer
    knobs = f"{config.model.name} {optimizer.name} lr={optimizer.learning_rate:g} seed={config.seed}"
    return config.run_name or knobs


def _kind(tags: Mapping[str, str]) -> str:
    """The start of the name of a repeated run: tables cut the ends of names."""
    if names.REPRODUCES_TAG in tags:
        return "reproduction of "
    return "variation of " if names.VARIES_TAG in tags else ""


def note(command: str, tags: Mapping[str, str]) -> str:
    """The run's description in the MLflow UI, in Markdown."""
    origin = tags.get(names.REPRODUCES_TAG)
    verdict = (
        f"Reproduces run `{origin}`: the tag `{names.VERDICT_TAG}` says how it ended.\n\n"
        if origin
        else ""
    )
    return (
        f"{verdict}"
        f"    {command}\n\n"
        "Run it again, with a verdict on whether the result is the same:\n\n"
        f"    digitlab reproduce {OWN_ID}\n\n"
        f"Let it read pictures: `digitlab predict {OWN_ID} IMAGE`. Learning curves, confusion matrix "
        "and worst mistakes are among the artifacts, as far as they were drawn "
        f"(`digitlab show {OWN_ID} --plots` draws them).\n"
    )


def _describe_data(dataset: Dataset) -> dict[str, str]:
    """The data set as an MLflow input; its digest covers every byte, unlike MLflow's own."""
    sizes = {"train": len(dataset.train), "test": len(dataset.test)}
    sizes["validation"] = len(dataset.validation) if dataset.validation else 0
    return {
        "name": dataset.name,
        "digest": dataset.digests["train_images"][:DIGEST_LENGTH],
        "source_type": "code",
        "source": json.dumps({"name": dataset.name, "sha256": dataset.digests}),
        "profile": json.dumps({"num_images": sizes}),
    }
