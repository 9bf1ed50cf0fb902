"""A table of pixels: a row for each image, a column for each pixel, and one for the label.

One file that is split by a seed, or a folder with one for train and one for test. pyarrow reads it.
"""

import csv
import io
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from digitlab.data.checks import as_pixels, listed, raise_all
from digitlab.data.image_data import Array, ImageData, Labelled, of_pairs
from digitlab.data.loaders.files import check_regular
from digitlab.errors import DataError, reason

if TYPE_CHECKING:
    import pyarrow as pa

MAX_BYTES = 8_000_000_000
LABELS = ("label", "class", "target", "y")  # names of the label's column, if none is given
FIRST = 1 << 24  # bytes of the first line, at the most: names of 256x256x3 columns have 2 million
BLOCK = 1 << 20  # bytes that are read at once, at the least


def load(
    path: Path,
    *,
    label_column: str | None,
    height: int | None,
    width: int | None,
    test_fraction: float,
    test_seed: int,
) -> ImageData:
    """label_column: its name, or its position from 0 (-1: the last); None: see LABELS, else the first.

    height, width: None where images are square.

    Raises:
        DataError: what is wrong, with its row and column.
    """
    files = _files(path)
    pairs = [_read(file, label_column, height, width) for file in files]
    return of_pairs(pairs, fraction=test_fraction, seed=test_seed)


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        check_regular(path)
        return [path]
    found = sorted(file for file in path.iterdir() if file.suffix.lower() == ".csv")
    chosen, problems = [], []
    for split in ("train", "test"):
        files = [file for file in found if split in file.stem.lower()]
        if len(files) != 1:
            names = listed(file.name for file in files) or "none"
            problems.append(
                f"expected one .csv file with {split} in its name, found {names}; data.path=PATH may "
                "name a file, to be split by data.test_seed"
            )
        chosen += files
    raise_all(str(path), problems)
    for file in chosen:
        check_regular(file)
    return chosen


def _read(file: Path, label_column: str | None, height: int | None, width: int | None) -> Labelled:
    if (size := file.stat().st_size) > MAX_BYTES:
        raise DataError(f"{file}: has {size:,} bytes, more than {MAX_BYTES:,}")
    table, has_header = _table(file)
    place = _label_place(file, table.column_names, label_column, has_header=has_header)
    labels = _labels(file, table.column_names[place], table.column(place))
    rows = table.remove_column(place)
    if not has_header or rows.column_names[:1] not in ([""], ["Unnamed: 0"]):
        pixels = rows
    else:
        pixels = rows.remove_column(0)  # the numbers of rows, which pandas writes
    shape = _shape(file, pixels.num_columns, height, width)
    return _pixels(file, pixels, first_row=2 if has_header else 1).reshape(-1, *shape), labels


def _table(file: Path) -> "tuple[pa.Table, bool]":
    """With its columns' names, or numbers where it has no header, which is no row of numbers."""
    import pyarrow.csv  # 0.1 s, which other forms need not wait for

    try:
        with file.open("rb") as opened:
            line = opened.readline(FIRST).decode("utf-8-sig")
        fields = next(csv.reader(io.StringIO(line)), [])
        has_header = bool(fields) and not _is_row(fields)
        options: dict[str, Any] = (
            {} if has_header else {"column_names": [*map(str, range(len(fields)))]}
        )
        options["block_size"] = max(BLOCK, 4 * len(line))
        table = pyarrow.csv.read_csv(file, read_options=pyarrow.csv.ReadOptions(**options))
    except (OSError, UnicodeDecodeError, pyarrow.ArrowInvalid, csv.Error) as error:
        said = reason(error) if isinstance(error, OSError) else " ".join(str(error).split())[:200]
        raise DataError(f"{file}: cannot be read as a table: {said}") from None
    if table.num_columns < 2 or not table.num_rows:
        raise DataError(
            f"{file}: has {table.num_rows:,} rows of {table.num_columns} columns, expected a label and "
            "the pixels, separated by commas"
        )
    return table, has_header


def _is_row(fields: list[str]) -> bool:
    """All numbers but one at the most, the label; pandas numbers columns 0, 1, 2 ... in a header."""
    others = sum(not _is_number(field) for field in fields)
    is_numbered = fields == [str(place) for place in range(len(fields))]
    return others <= 1 and not is_numbered and not (others and _numbered_but_label(fields))


def _numbered_but_label(fields: list[str]) -> bool:
    """`label,0,1,2,...`: numbers that count the pixels."""
    numbers = [field for field in fields if _is_number(field)]
    return len(numbers) > 1 and numbers in (
        [str(place) for place in range(len(numbers))],
        [str(place + 1) for place in range(len(numbers))],
    )


def _is_number(field: str) -> bool:
    try:
        return math.isfinite(float(field))
    except ValueError:
        return False


def _label_place(file: Path, names: list[str], chosen: str | None, *, has_header: bool) -> int:
    if chosen is None:
        lower = [name.strip().lower() for name in names]
        return next((lower.index(name) for name in LABELS if name in lower), 0) if has_header else 0
    if has_header and chosen in names:
        return names.index(chosen)
    try:
        place = int(chosen)
    except ValueError:
        place = len(names)
    if not -len(names) <= place < len(names):
        columns = listed(names, len(names)) if has_header else "none: it has no header"
        raise DataError(
            f"{file}: there is no column {chosen} (data.label_column), expected its name or its "
            f"position from 0 to {len(names) - 1}; names are {columns}"
        )
    return place % len(names)


def _labels(file: Path, name: str, column: "pa.ChunkedArray") -> Array:
    if column.null_count:
        raise DataError(f"{file}: {column.null_count:,} rows have no label in column {name}")
    labels: Array = column.to_numpy()
    if labels.dtype.kind == "f" and (labels == np.rint(labels)).all():
        return labels.astype(np.int64)
    if labels.dtype == object and all(isinstance(label, str) for label in labels):
        return labels.astype(np.str_)
    if labels.dtype.kind in "iu":
        return labels
    raise DataError(
        f"{file}: column {name} holds {column.type}, expected labels: integers or texts; "
        "data.label_column=NAME names another column"
    )


def _shape(file: Path, count: int, height: int | None, width: int | None) -> tuple[int, ...]:
    """(H, W), or (H, W, 3) where there are three times as many columns."""
    for colours in (1, 3):
        pixels, rest = divmod(count, colours)
        side = math.isqrt(pixels)
        high = height or (pixels // width if width else side)
        wide = width or (pixels // height if height else side)
        if not rest and high * wide == pixels:
            return (high, wide) if colours == 1 else (high, wide, 3)
    expected = " x ".join(str(side) if side else "any" for side in (height, width))
    given = f"data.height x data.width, {expected}" if height or width else "a square"
    raise DataError(
        f"{file}: has {count} columns besides the label, which are no images of {given} (nor three "
        "times as many, in colour); data.height=H data.width=W says their shape"
    )


def _pixels(file: Path, table: "pa.Table", *, first_row: int) -> Array:
    """(N, pixels). first_row: its line in the file."""
    import pyarrow as pa

    wrong = []
    for name, column in zip(table.column_names, table.columns, strict=True):
        if column.null_count:
            row = column.is_null().to_numpy().argmax() + first_row
            wrong.append(f"line {row}, column {name}: there is no number")
        elif not (pa.types.is_integer(column.type) or pa.types.is_floating(column.type)):
            texts = column.cast(pa.string()).to_pylist()
            row = next((i for i, text in enumerate(texts) if not _is_number(text)), 0)
            wrong.append(f"line {row + first_row}, column {name}: {texts[row]!a:.40} is no number")
    raise_all(str(file), wrong)
    images = np.empty((table.num_rows, table.num_columns), np.uint8)
    for place, column in enumerate(table.columns):
        try:
            images[:, place] = as_pixels(column.to_numpy())
        except ValueError as error:
            raise DataError(f"{file}: column {table.column_names[place]}: {error}") from None
    return images
