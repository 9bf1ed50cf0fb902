"""Checksums of data as decoded, whatever file they came in: what a record compares."""

import hashlib
import json
from typing import Any

import numpy as np
import numpy.typing as npt

from digitlab.data.image_data import ImageData


def digest(array: npt.NDArray[Any]) -> str:
    """SHA-256 of a decoded array: its shape, then its bytes."""
    found = hashlib.sha256(str(array.shape).encode())
    found.update(np.ascontiguousarray(array).data)
    return found.hexdigest()


def digests_of(data: ImageData) -> dict[str, str]:
    """Of images and labels (as int64) of train and test, and of the names of the classes."""
    found = {}
    for split, (images, labels) in (("train", data.train), ("test", data.test)):
        found[f"{split}_images"] = digest(images)
        found[f"{split}_labels"] = digest(labels.astype(np.int64))
    names = json.dumps(data.class_names, ensure_ascii=True)
    return {**found, "class_names": hashlib.sha256(names.encode()).hexdigest()}
