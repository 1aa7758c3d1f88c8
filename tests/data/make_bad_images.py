"""Image files that decoders get wrong: what each of them is, and the right answer.

`python tests/data/make_bad_images.py FOLDER` writes them down, to be tried with something else.
"""

import io
import struct
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

SIZE = 24
RAMP = np.linspace(0, 255, SIZE * SIZE).round().astype(np.uint8).reshape(SIZE, SIZE)
PIXELS = np.stack([RAMP, RAMP.T, 255 - RAMP], -1)  # uint8 [H,W,3], smooth, so that JPEG keeps it
GRAY = np.repeat(RAMP[:, :, None], 3, -1)
WIDE = PIXELS[: SIZE // 2]


class Case(NamedTuple):
    """A file and what is right."""

    name: str
    content: bytes
    pixels: np.ndarray | None
    """uint8 `[H,W,3]`; None where only an error is right."""
    off: int = 0
    """How far pixels may be from these, where the format is lossy or the range is rounded."""
    says: str = ""
    """A part of the error."""


def saved(image: Image.Image | np.ndarray, kind: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    image.save(stream, kind, **options)
    return stream.getvalue()


def chunk(kind: bytes, content: bytes) -> bytes:
    """A chunk of a PNG file."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(width: int, height: int, depth: int, colour: int, rows: bytes, *extra: bytes) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"".join(
        [b"\x89PNG\r\n\x1a\n", chunk(b"IHDR", header), *extra, chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")]
    )


def flipped(content: bytes, at: float) -> bytes:
    """One bit is another, that far into the file."""
    place = int(at * len(content))
    return content[:place] + bytes([content[place] ^ 4]) + content[place + 1 :]


def odd() -> Iterator[Case]:
    """Files that can be read, and are often read wrongly."""
    deep = RAMP.astype(np.uint16) * 257
    yield Case("gray16.png", saved(deep, "PNG"), GRAY, 1)
    yield Case("gray16.tif", saved(deep, "TIFF"), GRAY, 1)
    yield Case("gray16-dim.png", saved(deep // 4, "PNG"), GRAY // 4, 1)
    yield Case("gray16-big-endian.tif", saved(deep.astype(">u2"), "TIFF"), GRAY, 1)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in PIXELS.astype(np.uint16) * 257)
    yield Case("rgb16.png", png(SIZE, SIZE, 16, 2, rows), PIXELS, 1)
    yield Case("int32.tif", saved(RAMP.astype(np.int32) * 257, "TIFF"), GRAY, 1)
    yield Case("int32-small.tif", saved(RAMP.astype(np.int32), "TIFF"), GRAY)
    yield Case("int32-large.tif", saved(RAMP.astype(np.int32) * 4000 - 300_000, "TIFF"), GRAY, 1)
    yield Case("float-0-1.tif", saved(RAMP.astype(np.float32) / 255, "TIFF"), GRAY, 1)
    yield Case("float-0-255.tif", saved(RAMP.astype(np.float32), "TIFF"), GRAY)
    yield Case("float-negative.tif", saved(RAMP.astype(np.float32) - 100, "TIFF"), GRAY, 1)
    yield Case("float-black.tif", saved(np.zeros((SIZE, SIZE), np.float32), "TIFF"), GRAY * 0)
    inks = np.concatenate([255 - PIXELS, np.zeros((SIZE, SIZE, 1), np.uint8)], -1)
    yield Case("cmyk.jpg", saved(Image.fromarray(inks, "CMYK"), "JPEG", quality=98, subsampling=0), PIXELS, 8)
    yield Case("cmyk.tif", saved(Image.fromarray(inks, "CMYK"), "TIFF"), PIXELS)
    yield Case("gray.jpg", saved(RAMP, "JPEG", quality=98), GRAY, 8)
    yield Case("progressive.jpg", saved(PIXELS, "JPEG", quality=98, subsampling=0, progressive=True), PIXELS, 8)
    yield Case("named.png", saved(PIXELS, "JPEG", quality=98, subsampling=0), PIXELS, 8)
    yield Case("named.jpg", saved(PIXELS, "PNG"), PIXELS)
    yield Case("trailing.jpg", saved(PIXELS, "JPEG", quality=98, subsampling=0) + b"\0" * 50, PIXELS, 8)
    for n in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = n
        # Exif 2.32: where the picture's first row and column are in what is stored.
        upright = {
            1: WIDE,
            2: WIDE[:, ::-1],
            3: WIDE[::-1, ::-1],
            4: WIDE[::-1],
            5: WIDE.swapaxes(0, 1),
            6: WIDE[::-1].swapaxes(0, 1),
            7: WIDE[::-1, ::-1].swapaxes(0, 1),
            8: WIDE[:, ::-1].swapaxes(0, 1),
        }[n]
        yield Case(f"turned-{n}.jpg", saved(WIDE, "JPEG", quality=98, subsampling=0, exif=exif), upright, 8)
    yield Case("turned.png", saved(WIDE, "PNG", exif=exif), WIDE[:, ::-1].swapaxes(0, 1))
    clear = np.concatenate([PIXELS, RAMP[:, :, None]], -1)
    share = RAMP[:, :, None] / 255
    over = PIXELS * share + 255 * (1 - share)
    yield Case("rgba.png", saved(clear, "PNG"), over, 1)
    yield Case("rgba.webp", saved(clear, "WEBP", lossless=True, exact=True), over, 1)
    yield Case("la.png", saved(np.stack([RAMP, RAMP.T], -1), "PNG"), 255 - (255 - GRAY) * (RAMP.T[:, :, None] / 255), 1)
    two = np.where(PIXELS[:, :, :1] > 127, np.uint8(255), np.uint8(0))
    yield Case("palette.png", saved(Image.fromarray(GRAY).quantize(256), "PNG"), GRAY)
    mask = Image.fromarray((two[:, :, 0] > 0).astype(np.uint8), "P")
    mask.putpalette([0, 0, 255, 200, 100, 0])
    see = np.where(two > 0, np.array([200, 100, 0]), np.array([255, 255, 255]))
    yield Case("palette-clear.png", saved(mask, "PNG", transparency=0), see)
    yield Case("palette-clear.gif", saved(mask, "GIF", transparency=0), see)
    yield Case("one-bit.png", saved(Image.fromarray(two[:, :, 0]).convert("1"), "PNG"), np.repeat(two, 3, -1))
    yield Case("one-bit.tif", saved(Image.fromarray(two[:, :, 0]).convert("1"), "TIFF"), np.repeat(two, 3, -1))
    frames = [Image.fromarray(GRAY), Image.fromarray(255 - GRAY)]
    yield Case("animated.gif", saved(frames[0], "GIF", save_all=True, append_images=frames[1:]), GRAY)
    first = saved(frames[0], "WEBP", save_all=True, append_images=frames[1:], lossless=True)
    yield Case("animated.webp", first, GRAY)
    yield Case("plain.bmp", saved(PIXELS, "BMP"), PIXELS)
    yield Case("packed.tif", saved(PIXELS, "TIFF", compression="tiff_lzw"), PIXELS)


def bad() -> Iterator[Case]:
    """Files that cannot be read."""
    for name, content in {
        "empty.jpg": b"",
        "text.jpg": b"not an image",
        "page.png": b"<!doctype html><html></html>",
        "paper.jpg": b"%PDF-1.7\n",
        "archive.png": b"PK\x03\x04" + bytes(60),
        "phone.jpg": b"\0\0\0\x18ftypheic" + bytes(40),
        "noise.jpg": np.random.default_rng(0).bytes(1000),
        "zeros.jpg": bytes(1000),
    }.items():
        yield Case(name, content, None, says="not an image")
    rough = np.random.default_rng(1).integers(0, 256, (64, 64, 3), np.uint8)
    kinds = {"jpg": "JPEG", "png": "PNG", "webp": "WEBP", "gif": "GIF", "bmp": "BMP", "tif": "TIFF"}
    for ending, kind in kinds.items():
        whole = saved(rough, kind)
        for percent in (10, 50, 90):
            yield Case(f"cut-{percent}.{ending}", whole[: len(whole) * percent // 100], None, says="image")
    whole = saved(rough, "PNG")
    for n in range(4):
        yield Case(f"flipped-{n}.png", flipped(whole, 0.1 + 0.2 * n), None, says="checksum")
    scan = saved(rough, "JPEG")
    yield Case("marker.jpg", scan[:2000] + b"\xff\xc4" + scan[2002:], None, says="damaged")
    yield Case("no-table.jpg", scan.replace(b"\xff\xdb", b"\xff\xe5"), None, says="damaged")
    big = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    bomb = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", big) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    yield Case("bomb.png", bomb, None, says="pixels")
    start = scan.index(b"\xff\xc0")
    yield Case("bomb.jpg", scan[: start + 5] + b"\xff\xff\xff\xff" + scan[start + 9 :], None, says="pixels")
    text = chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(80_000_000)))
    yield Case("text-bomb.png", png(2, 2, 8, 0, b"\0\1\1\0\1\1", text), None, says="damaged")
    yield Case("nothing.png", png(0, 0, 8, 2, b""), None, says="image")
    nan = RAMP.astype(np.float32)
    nan[3, 4] = np.nan
    yield Case("nan.tif", saved(nan, "TIFF"), None, says="not numbers")


def cases() -> list[Case]:
    return [*odd(), *bad()]


def main() -> None:
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for case in cases():
        (folder / case.name).write_bytes(case.content)


if __name__ == "__main__":
    main()
