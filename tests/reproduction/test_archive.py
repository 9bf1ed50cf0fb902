"""The archive of a run may come from anybody: it is what its document says, or refused in one line."""

import hashlib
import io
import json
import os
import random
import shutil
import struct
import time
import tracemalloc
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import yaml
from safetensors.torch import load, save

from digitlab import cli
from digitlab.reproduction.archive import packed_archive, parse_archive, read_recorded
from digitlab.runs.document import RefusedDocument, config_digest
from digitlab.tracking.connection.location import resolve_uri
from digitlab.tracking.store import RunStore
from tests.support.cli import CHECKOUT, Cli

Contents = dict[str, bytes]
NUM_FLIPS = 3000
RUN_ID = "0123456789abcdef" * 2


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """As a real run writes it."""
    home = tmp_path_factory.mktemp("home")
    shutil.copytree(CHECKOUT / "conf", home / "conf")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DIGITLAB_HOME", str(home))
        cli.main(["train", "model=logistic_regression", "epochs=2", "record.plots=never"])
        run = RunStore(resolve_uri(None)).runs()[0]
        cli.main(["export", run.run_id, str(home / "run.zip")])
    return (home / "run.zip").read_bytes()


@pytest.fixture
def contents(archive: bytes) -> Contents:
    with zipfile.ZipFile(io.BytesIO(archive)) as opened:
        return {name: opened.read(name) for name in opened.namelist()}


def refusal(content: bytes) -> str:
    with pytest.raises(RefusedDocument) as refused:
        parse_archive(content, "run.zip")
    (line,) = refused.value.problems
    assert line.isprintable()
    return line


def packed(contents: Mapping[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """As an attacker would: with the sums that fit."""
    files = {name: content for name, content in contents.items() if name != "SHA256SUMS"}
    sums = "".join(f"{hashlib.sha256(files[name]).hexdigest()}  {name}\n" for name in files)
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w", method) as opened:
        opened.comment = RUN_ID.encode()
        for name, content in {**files, "SHA256SUMS": sums.encode()}.items():
            opened.writestr(name, content)
    return written.getvalue()


def test_an_archive_that_is_whole_is_read(archive: bytes, contents: Contents, tmp_path: Path) -> None:
    recorded = parse_archive(archive, "")
    (tmp_path / "bare").write_bytes(contents["record.json"])
    assert read_recorded(tmp_path / "bare").document == recorded.document
    assert parse_archive(packed(contents), "").document == recorded.document


def test_a_configuration_as_an_earlier_digitlab_wrote_it_is_the_same(contents: Contents) -> None:
    document = json.loads(contents["record.json"])
    document["config"]["study"] = "12e34"
    document["config_sha256"] = config_digest(document["config"])
    config = yaml.safe_dump(document["config"], sort_keys=False)
    assert "study: 12e34" in config
    files = {"record.json": json.dumps(document).encode(), "config.yaml": config.encode()}
    assert parse_archive(packed(contents | files), "").document.config["study"] == "12e34"


def test_a_flipped_bit_is_refused_in_one_line_or_changes_nothing(
    contents: Contents,
) -> None:
    archive = packed({k: v for k, v in contents.items() if k != "requirements.lock"})
    whole = parse_archive(archive, "")
    draw = random.Random(0)
    num_refused = 0
    for _ in range(NUM_FLIPS):
        damaged = bytearray(archive)
        damaged[draw.randrange(len(archive))] ^= 1 << draw.randrange(8)
        recorded, told = None, []
        try:
            recorded = parse_archive(bytes(damaged), "")
        except RefusedDocument as refused:
            told = refused.problems
        if recorded:
            assert (recorded.document, recorded.patch) == (whole.document, whole.patch)
        assert all(line.isprintable() for line in told)
        num_refused += bool(told)
    assert num_refused > 0.9 * NUM_FLIPS


def test_an_archive_that_is_cut_anywhere_or_followed_by_something_is_refused(archive: bytes) -> None:
    for end in {*range(0, len(archive), 500), *range(len(archive) - 60, len(archive))}:
        refusal(archive[:end])
    assert "does not end where it says" in refusal(archive[:-1])
    assert "does not end where it says" in refusal(archive + b"0")


def zeros(content: bytes) -> bytes:
    return save({name: tensor * 0 for name, tensor in load(content).items()})


FORGERIES: dict[str, Callable[[bytes], bytes]] = {
    "config.yaml": lambda content: content.replace(b"seed: 0", b"seed: 1"),
    "weights.safetensors": zeros,
    "predictions.parquet": lambda _: b"PAR1" + bytes(1000),
    "metrics.csv": lambda content: content.replace(b"0.", b"0.1", 1),
    "model.json": lambda content: content.replace(b"28, 28", b"28, 29"),
}


def test_an_archive_of_an_earlier_digitlab_has_no_signature(contents: Contents) -> None:
    del contents["model.json"]
    assert parse_archive(packed(contents), "run.zip").document.num_classes == 10


def test_classes_beyond_those_of_the_document_are_refused(contents: Contents) -> None:
    document = json.loads(contents["record.json"]) | {"image_shape": [1, 28, 28], "num_classes": 9}
    told = refusal(packed(contents | {"record.json": json.dumps(document).encode()}))
    assert "predictions.parquet is not what the trace" in told


@pytest.mark.fault("F26")
@pytest.mark.parametrize("name", FORGERIES)
def test_what_is_not_of_the_record_is_refused(name: str, contents: Contents) -> None:
    part = {"config.yaml": "configuration", "model.json": "data"}.get(name, "trace")
    for changed in (FORGERIES[name](contents[name]), bytes(1_000_000), b"", b"\xff\xfe"):
        told = refusal(packed(contents | {name: changed}))
        assert f"{name} is not what the {part} in its record.json says" in told


def test_predictions_of_as_many_images_that_are_others_are_refused(contents: Contents) -> None:
    import pyarrow.parquet

    table = pyarrow.parquet.read_table(io.BytesIO(contents["predictions.parquet"]))
    classes = table["prediction"].to_pylist()
    for changed in ([(classes[0] + 1) % 10, *classes[1:]], [classes[0] + 256, *classes[1:]]):
        written = io.BytesIO()
        place = table.column_names.index("prediction")
        column = pyarrow.array(changed, table.schema.field(place).type)
        pyarrow.parquet.write_table(table.set_column(place, "prediction", column), written)
        refusal(packed(contents | {"predictions.parquet": written.getvalue()}))


def many_entries(contents: Contents) -> bytes:
    """60,000 entries of the list that all name the place of one member."""
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w", zipfile.ZIP_DEFLATED) as opened:
        opened.comment = RUN_ID.encode()
        opened.writestr("record.json", bytes(1_000_000))
        opened.filelist *= 60_000
    return written.getvalue()


def twice(contents: Contents) -> bytes:
    written = io.BytesIO(packed(contents))
    with zipfile.ZipFile(written, "a") as opened, pytest.warns(UserWarning, match="Duplicate"):
        opened.writestr("record.json", contents["record.json"])
    return written.getvalue()


def understated(contents: Contents) -> bytes:
    """A member that unpacks to 201 MB and says that it has ten bytes."""
    changed = bytearray(packed({"metrics.csv": bytes(201_000_000)}))
    for signature, place in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        start = changed.index(signature) + place
        changed[start : start + 4] = struct.pack("<I", 10)
    return bytes(changed)


HOSTILE: dict[str, tuple[Callable[[Contents], bytes], str]] = {
    "many entries": (many_entries, "it holds too many files"),
    "one name twice": (twice, "it holds record.json more than once"),
    "a bomb": (lambda c: packed(c | {"metrics.csv": bytes(201_000_000)}), "more than 200,000,000"),
    "an understated bomb": (understated, ""),
    "lzma": (lambda c: packed(c, zipfile.ZIP_LZMA), "packed in another way than by deflation"),
    "bzip2": (lambda c: packed(c, zipfile.ZIP_BZIP2), "packed in another way than by deflation"),
    "a foreign name": (lambda c: packed(c | {"../x": b""}), "which no archive of a run does"),
    "no weights": (
        lambda c: packed({k: v for k, v in c.items() if "weights" not in k}),
        "lacks weights",
    ),
    "no archive": (lambda _: b"no archive", "is neither an archive of a run nor a record.json"),
    "empty": (lambda _: b"", "is neither an archive of a run nor a record.json"),
}


@pytest.mark.fault("F26")
@pytest.mark.parametrize("kind", HOSTILE)
def test_what_is_hostile_is_refused_soon_and_in_little_memory(kind: str, contents: Contents) -> None:
    make, told = HOSTILE[kind]
    content = make(contents)
    tracemalloc.start()
    started = time.process_time()
    line = refusal(content)
    seconds, peak = time.process_time() - started, tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert told in line
    assert seconds < 5
    assert peak < 100e6


def test_what_could_not_be_read_again_is_not_written(contents: Contents, tmp_path: Path) -> None:
    file = tmp_path / "out.zip"
    kept = {name: content for name, content in contents.items() if name != "SHA256SUMS"}
    with pytest.raises(RefusedDocument, match=r"weights\.safetensors is not what the trace"):
        packed_archive(kept | {"weights.safetensors": bytes(100)}, RUN_ID)
    record_id = "20261126-141800-0a1b2c3d"  # of a record that no store has yet
    file.write_bytes(packed_archive(kept, record_id))
    assert read_recorded(file).run_id == record_id


def test_a_patch_in_any_encoding_is_kept_as_it_is(contents: Contents) -> None:
    patch = b"+# gr\xf6\xdfe\r\n"
    assert parse_archive(packed(contents | {"source.patch": patch}), "").patch == patch


def test_what_is_no_regular_file_is_refused_at_once(tmp_path: Path, digitlab: Cli) -> None:
    os.mkfifo(tmp_path / "pipe.zip")
    (tmp_path / "endless.json").symlink_to("/dev/zero")
    for name in ("pipe.zip", "endless.json"):
        result = digitlab("reproduce", str(tmp_path / name))
        assert result.code == 5
        assert f"{name}: is no regular file" in result.out


def test_the_verdict_on_a_forged_archive_is_cannot(
    contents: Contents, tmp_path: Path, digitlab: Cli
) -> None:
    file = tmp_path / "run.zip"
    forged = contents | {"weights.safetensors": zeros(contents["weights.safetensors"])}
    file.write_bytes(packed(forged))
    result = digitlab("reproduce", str(file), "--json")
    verdict = json.loads(result.out)
    assert (result.code, verdict["kind"]) == (5, "CANNOT")
    assert "weights.safetensors is not what the trace" in verdict["details"][0]
