"""What a saved model takes and gives: the shape of an image and the names of its classes.

It lies beside the weights as model.json, and may come from a store that others write to: read as data,
of a bounded size, into one closed type.
"""

import dataclasses
import json
from pathlib import Path
from typing import Annotated

from pydantic import Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from digitlab.config.kinds import CLOSED, Integer
from digitlab.data.known import SIDE, class_names

MODEL_FILE = "model.json"
MAX_BYTES = 1_000_000

Side = Annotated[Integer, Field(ge=1, le=256)]
Name = Annotated[str, Field(max_length=200)]


@dataclass(config=CLOSED, kw_only=True, slots=True, frozen=True)
class Signature:
    """image_shape: channels, height, width; one channel is grey. class_names: by number, from 0."""

    image_shape: tuple[Annotated[Integer, Field(ge=1, le=3)], Side, Side]
    class_names: Annotated[list[Name], Field(min_length=2, max_length=1000)]

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    @property
    def is_colour(self) -> bool:
        return self.image_shape[0] == 3

    @property
    def picture_shape(self) -> tuple[int, ...]:
        """Of one image as files and arrays hold it: (H, W), or (H, W, 3) in colour."""
        channels, *sides = self.image_shape
        return (*sides, channels) if self.is_colour else tuple(sides)


_SIGNATURE = TypeAdapter(Signature)


def dump(signature: Signature) -> str:
    return json.dumps(dataclasses.asdict(signature), ensure_ascii=False) + "\n"


def parse(content: bytes) -> Signature:
    """Raises ValueError with the reason if it is damaged."""
    try:
        if len(content) > MAX_BYTES:
            raise ValueError(f"it has {len(content)} bytes, more than {MAX_BYTES}")
        values = json.loads(content.decode())
        if isinstance(values, dict) and isinstance(values.get("image_shape"), list):
            values["image_shape"] = tuple(values["image_shape"])
        return _SIGNATURE.validate_python(values)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise ValueError(f"{MODEL_FILE} is damaged: {where}: {first['msg']}") from None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{MODEL_FILE} is damaged: {error}") from None


def read(folder: Path, data_name: str) -> Signature:
    """Of the saved model in a folder. data_name: of its data set, for models of an earlier digitlab,
    which has left no such file: they take 28x28 grey pixels."""
    file = folder / MODEL_FILE
    return parse(file.read_bytes()) if file.exists() else of_earlier(data_name)


def of_earlier(data_name: str) -> Signature:
    """Of models that an earlier digitlab has trained: on a set of MNIST's kind."""
    return Signature(image_shape=(1, SIDE, SIDE), class_names=class_names(data_name))
