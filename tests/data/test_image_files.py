"""Picture files of any kind, honest and hostile, as pixels or as one line of refusal."""

import io
import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from digitlab.data import image_files
from digitlab.data.image_files import RefusedImage, brought_to, decode_picture, read_picture

RAMP = np.arange(28 * 20, dtype=np.uint16).reshape(28, 20) % 256


def encoded(image: Image.Image, form: str = "PNG", **options: object) -> bytes:
    content = io.BytesIO()
    image.save(content, form, **options)
    return content.getvalue()


def png(width: int, height: int, rows: bytes) -> bytes:
    """A PNG of one bit a pixel whose header says what we want it to say."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        checksum = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + checksum

    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    parts = [chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@pytest.mark.parametrize("form", ["PNG", "BMP", "GIF"])
def test_lossless_formats_give_the_very_pixels(form: str) -> None:
    grey = RAMP.astype(np.uint8)
    assert (decode_picture(encoded(Image.fromarray(grey), form)) == grey).all()


def test_colour_palette_sixteen_bits_and_jpeg_become_grey() -> None:
    grey = RAMP.astype(np.uint8)
    image = Image.fromarray(grey)
    assert (decode_picture(encoded(image.convert("RGB"))) == grey).all()
    assert (decode_picture(encoded(image.convert("P"))) == grey).all()
    assert (decode_picture(encoded(Image.fromarray(RAMP * 257))) == grey).all()
    blurred = decode_picture(encoded(Image.fromarray(np.full((28, 20), 90, np.uint8)), "JPEG"))
    assert np.abs(blurred.astype(int) - 90).max() <= 2


@pytest.mark.parametrize(("ink", "paper"), [(0, 255), (255, 0)])
def test_transparency_is_paper_on_which_the_ink_shows(ink: int, paper: int) -> None:
    pixels = np.zeros((20, 20, 4), dtype=np.uint8)
    pixels[5:15, 8:12] = (ink, ink, ink, 255)
    grey = decode_picture(encoded(Image.fromarray(pixels)))
    assert (grey[5:15, 8:12] == ink).all()
    assert grey[0, 0] == paper


def test_the_orientation_that_a_camera_noted_is_heeded() -> None:
    image = Image.fromarray(RAMP.astype(np.uint8)).convert("RGB")
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    assert decode_picture(encoded(image, "JPEG", exif=exif)).shape == (20, 28)


def test_of_an_animation_the_first_picture_counts() -> None:
    first, second = (Image.fromarray(np.full((9, 9), v, np.uint8)) for v in (10, 200))
    content = encoded(first, "GIF", save_all=True, append_images=[second] * 50)
    assert (decode_picture(content) == 10).all()


def test_colour_is_kept_where_it_is_asked_for() -> None:
    colours = np.random.default_rng(0).integers(0, 256, (12, 9, 3), np.uint8)
    content = encoded(Image.fromarray(colours))
    assert (decode_picture(content, "rgb") == colours).all()
    assert (decode_picture(content, "auto") == colours).all()
    grey = RAMP.astype(np.uint8)
    as_colour = encoded(Image.fromarray(grey).convert("RGB"))
    assert (decode_picture(as_colour, "auto") == grey).all(), "no pixel has a colour"
    for content in (as_colour, encoded(Image.fromarray(grey)), encoded(Image.fromarray(RAMP * 257))):
        assert (decode_picture(content, "rgb") == grey[..., None]).all()


def test_transparency_of_a_colour_picture_is_paper() -> None:
    pixels = np.zeros((20, 20, 4), dtype=np.uint8)
    pixels[5:15, 8:12] = (200, 0, 0, 255)
    seen = decode_picture(encoded(Image.fromarray(pixels)), "auto")
    assert (seen[5:15, 8:12] == (200, 0, 0)).all()
    assert (seen[0, 0] == 255).all()


def test_a_picture_is_brought_to_a_shape() -> None:
    grey = np.repeat(np.repeat(np.array([[0, 80], [160, 240]], np.uint8), 32, 0), 32, 1)
    small = brought_to(grey, (1, 8, 16))
    assert small.shape == (8, 16)
    assert (small[[0, 0, -1, -1], [0, -1, 0, -1]] == (0, 80, 160, 240)).all()
    assert (brought_to(grey, (3, 64, 64)) == grey[..., None]).all()
    red = np.zeros((9, 9, 3), np.uint8) + np.array([255, 0, 0], np.uint8)
    assert (brought_to(red, (1, 9, 9)) == 76).all()


def many_scans() -> bytes:
    """A progressive JPEG whose last scan stands in it 5,000 times: each is decoded over all pixels."""
    content = encoded(Image.effect_noise((40, 40), 50), "JPEG", progressive=True)
    last = content.rindex(image_files.START_OF_SCAN)
    return content[:last] + content[last:-2] * 5000 + content[-2:]


HOSTILE = {
    "nothing": (b"", "empty"),
    "text": (b"a text called .png\n" * 100, "no image of a kind"),
    "eps": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n", "no image of a kind"),
    "svg": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "no image of a kind"),
    "truncated": (encoded(Image.effect_noise((100, 100), 50))[:3000], "damaged"),
    "header alone": (png(28, 28, b"")[:40], ""),
    "bomb": (png(20_000, 20_000, bytes(100)), "more than 25,000,000 pixels"),
    "small bomb": (png(8_000, 8_000, bytes(8_000 * 1_001)), "pixels, more than"),
    "flat bomb": (png(2**31 - 1, 2, bytes(100)), ""),
    "gif of a huge canvas": (b"GIF89a" + struct.pack("<HH", 65535, 65535) + bytes(3), ""),
    "many scans": (many_scans(), "it has 5,0"),
    "large file": (bytes(image_files.MAX_BYTES + 1), "more than 20,000,000 bytes"),
}


@pytest.mark.fault("F27")
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_content_is_refused_in_one_line(name: str) -> None:
    content, reason = HOSTILE[name]
    with pytest.raises(RefusedImage) as caught:
        decode_picture(content)
    message = str(caught.value)
    assert (
        reason in message.replace(" x ", "x").replace("20000x20000", "400000000") or reason in message
    )
    assert "\n" not in message


def test_a_jpeg_of_fifty_megapixels_is_read_at_reduced_size() -> None:
    large = Image.new("L", (8160, 6120), 255)
    large.paste(0, (2040, 1530, 4080, 3060))
    grey = decode_picture(encoded(large, "JPEG"))
    assert grey.shape == (768, 1024)
    assert np.abs(grey[200:380, 260:508].astype(int)).max() < 5
    assert grey[:180].min() > 250
    progressive = encoded(large, "JPEG", progressive=True)  # in memory whole while it is decoded
    with pytest.raises(RefusedImage, match="8160 x 6120 pixels, more than 25,000,000"):
        decode_picture(progressive)


def test_any_damage_to_an_image_is_refused_or_read() -> None:
    """One byte changed, at 600 places: never another error, never a picture of another size."""
    generator = np.random.default_rng(0)
    noise = Image.effect_noise((40, 30), 80)
    for form in ("PNG", "JPEG", "BMP", "GIF"):
        content = encoded(noise, form)
        for place in generator.integers(0, len(content), 150):
            damaged = bytearray(content)
            damaged[place] ^= int(generator.integers(1, 256))
            try:
                assert max(decode_picture(bytes(damaged)).shape) <= image_files.MAX_SIDE
            except RefusedImage:
                continue


def test_what_is_no_regular_file_is_not_even_opened(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.png"
    os.mkfifo(pipe)
    for name, reason in ((pipe, "no file"), (tmp_path / "x", "No such file"), ("x" * 300, "too long")):
        with pytest.raises(RefusedImage, match=reason):
            read_picture(str(name))
    with pytest.raises(RefusedImage):
        read_picture("a\0b")


def peak_growth(file: Path) -> tuple[int, str]:
    """MB by which reading a file raises the peak memory of a process, and what came of it."""
    code = f"""
import resource
from digitlab.data.image_files import RefusedImage, decode_picture, read_picture
from PIL import Image
try:
    decode_picture(b"warming up")
except RefusedImage:
    pass
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    told = read_picture({str(file)!r}).shape
except RefusedImage as error:
    told = error
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1000, told)
"""
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    megabytes, _, outcome = told.stdout.strip().partition(" ")
    return int(megabytes), outcome


@pytest.mark.fault("F27")
def test_a_bomb_costs_no_memory(tmp_path: Path) -> None:
    """Refused before decoding."""
    bomb = tmp_path / "bomb.png"
    bomb.write_bytes(png(20_000, 20_000, bytes(20_000 * 2_501)))  # 400 million pixels in 50 kB
    assert bomb.stat().st_size < 100_000
    megabytes, outcome = peak_growth(bomb)
    assert megabytes < 30
    assert "more than 25,000,000" in outcome


@pytest.mark.parametrize("mode", ["RGBA", "P", "I;16", "L"])
def test_the_largest_image_that_is_read_is_never_in_memory_twice(mode: str, tmp_path: Path) -> None:
    """25 million pixels: 100 MB as RGBA, and half of that as grey and opacity."""
    file = tmp_path / "large.png"
    side = 5000
    if mode == "I;16":
        Image.fromarray(np.zeros((side, side), np.uint16)).save(file)
    elif mode == "P":
        Image.new("P", (side, side)).save(file, transparency=0)
    else:
        Image.new(mode, (side, side)).save(file)
    megabytes, outcome = peak_growth(file)
    assert megabytes < 200
    assert outcome.startswith("(10")  # 1024, or 1000 where every fifth pixel is taken
