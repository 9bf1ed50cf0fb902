"""A journal after what a kill, a full disk or a bad sector does to it."""

from pathlib import Path

from digitlab.text.line_files import Journal


def open_journal(file: Path) -> Journal:
    return Journal(file, lambda line: "n" in line)


def test_what_a_kill_cut_off_was_never_written(tmp_path: Path) -> None:
    file = tmp_path / "journal.jsonl"
    open_journal(file).append({"n": 1})
    with file.open("ab") as half:
        half.write(b'{"n": 2')
    again = open_journal(file)
    assert again.lines() == [{"n": 1}]
    assert again.num_damaged() == 0
    again.append({"n": 3})
    again.append({"n": 4})
    assert open_journal(file).lines() == [{"n": 1}, {"n": 3}, {"n": 4}]


def test_a_damaged_line_costs_itself_and_can_be_set_aside(tmp_path: Path) -> None:
    file = tmp_path / "journal.jsonl"
    damaged = [b'{"n": \xff}', b"[1]", b'{"m": 1}', b"[" * 100_000, b""]
    file.write_bytes(b"\n".join([b'{"n": 1}', *damaged, b'{"n": 2}', b""]))
    journal = open_journal(file)
    assert journal.lines() == [{"n": 1}, *[None] * len(damaged), {"n": 2}]
    assert journal.set_damaged_aside() == len(damaged)
    assert journal.lines() == [{"n": 1}, {"n": 2}]
    assert (tmp_path / "journal.jsonl.damaged").read_bytes() == b"\n".join([*damaged, b""])
    assert journal.set_damaged_aside() == 0
