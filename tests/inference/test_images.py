"""Pictures as a command line names them."""

from pathlib import Path

import pytest

from digitlab.data.image_files import RefusedImage
from digitlab.inference.images import check_any_exists, expand, read


def test_what_there_is_not_is_refused_with_the_reason() -> None:
    with pytest.raises(RefusedImage, match="too long"):
        read("x" * 300)


def test_a_folder_stands_for_its_files(tmp_path: Path) -> None:
    for name in ("b.png", "a.JPG", "notes.txt", "._b.png", ".DS_Store"):
        (tmp_path / name).touch()
    (tmp_path / "inner").mkdir()
    found = list(expand([str(tmp_path), "-", "gone.png"]))
    assert found == [str(tmp_path / "a.JPG"), str(tmp_path / "b.png"), "-", "gone.png"]


@pytest.mark.parametrize("name", ["inner", "x" * 300, "a\0b"])
def test_what_has_no_images_is_refused_when_it_is_read_not_before(name: str, tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    wanted = [str(tmp_path / name), "-"]
    check_any_exists(wanted[:1])
    assert list(expand(wanted)) == wanted
    with pytest.raises(RefusedImage, match=r"holds no images|too long|null byte"):
        read(wanted[0])
