"""What is known of a run before it trains: its document, and the record that it begins with.

A run that is killed in its first step is described as fully as one that has finished.
"""

import hashlib
import json
from collections.abc import Mapping

import torch

from digitlab.config import project
from digitlab.config.checking import as_param, flatten, recorded_config, to_dict
from digitlab.config.fingerprint import (
    WITHOUT_EFFECT,
    code_digest,
    fingerprint,
    source_digest,
    source_files,
)
from digitlab.config.schema import Config
from digitlab.data.splits import Dataset
from digitlab.models.saved import CONFIG_FILE
from digitlab.runs import document as documents
from digitlab.runs import provenance
from digitlab.runs.document import Code, Document
from digitlab.text import yaml_text
from digitlab.tracking import names, process
from digitlab.tracking.run_folder import Membership, RunFolder
from digitlab.tracking.stored_run import OWN_ID
from digitlab.training import arithmetic

DIGEST_LENGTH = 36  # MLflow's limit for a data set's digest


def describe_run(config: Config, dataset: Dataset, device: torch.device, *, command: str) -> Document:
    """Everything that the result depends on, as it is now in this process."""
    values = to_dict(config)
    code, patch = provenance.code(), provenance.patch()
    return Document(
        format=1,
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
        data=dataset.digests,
        device="cuda" if device.type == "cuda" else "cpu",
        threads=config.threads,
        arithmetic=arithmetic.describe(threads=config.threads, device=device.type),
        canary=arithmetic.canary(threads=config.threads, device=device.type),
        versions=provenance.versions(),
        machine=arithmetic.machine(),
        reproducible=True,
        trace=None,
    )


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
    }


def open_record(
    document: Document,
    config: Config,
    dataset: Dataset,
    uri: str,
    *,
    name: str,
    member: Membership | None,
    tags: Mapping[str, str],
) -> RunFolder:
    """The record of a new run; `member`: its place in a sweep. tags: further ones."""
    code, device = document.code, document.device
    digests = {f"{names.DATA_TAG}{name}": value for name, value in dataset.digests.items()}
    record = RunFolder.create(
        project.records(),
        study=config.study,
        record_id=member.record_id if member else None,
        parent=member.sweep if member else None,
        is_resumable=True,
        name=_kind(tags) + (member.name if member else name),
        tracking_uri=uri,
        params={path: as_param(value) for path, value in flatten(document.config).items()},
        tags={
            names.VERSION_TAG: code.version,
            names.COMMIT_TAG: code.commit,
            names.DIRTY_TAG: code.dirty,
            names.COMMAND_TAG: document.command,
            names.HOST_TAG: document.machine["host"],
            names.DEVICE_TAG: device,
            names.CONFIG_TAG: document.config_sha256,
            names.SOURCE_TAG: code.source,
            names.CANARY_TAG: document.canary,
            names.FINGERPRINT_TAG: fingerprint(config, device=device, data=dataset.digests),
            names.SOURCE_NAME_TAG: "digitlab",
            names.SOURCE_TYPE_TAG: "LOCAL",
            names.SOURCE_COMMIT_TAG: code.commit,
            names.NOTE_TAG: _note(document.command, tags),
            **digests,
            **(member.tags if member else {}),
            **tags,
        },
        dataset=_describe_data(dataset),
        process=process.this_process(),
    )
    write_first_artifacts(record, document)
    return record


def write_first_artifacts(record: RunFolder, document: Document) -> None:
    """Configuration and uncommitted changes; again if a kill came between the record and these."""
    (record.artifacts / CONFIG_FILE).write_text(yaml_text.dump(document.config))
    if patch := provenance.patch():
        (record.artifacts / names.PATCH_FILE).write_text(patch)


def _kind(tags: Mapping[str, str]) -> str:
    """What tells a run from the one that it repeats; in front, since tables cut ends."""
    if names.REPRODUCES_TAG in tags:
        return "reproduction of "
    return "variation of " if names.VARIES_TAG in tags else ""


def _note(command: str, tags: Mapping[str, str]) -> str:
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
        f"Read digits with it: `digitlab predict {OWN_ID} IMAGE`. Learning curves, confusion matrix "
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
