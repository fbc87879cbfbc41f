"""Whatever bytes come, an upload is known or refused in words: no other error leaves the reader."""

from __future__ import annotations

import io
import json
import random
import struct
import zipfile
from collections.abc import Mapping

import pytest

from api.services.inspection import inspect
from shared.domain.errors import ThawError
from shared.settings import Settings

SETTINGS = Settings(database_url="postgresql://", redis_url="redis://", store_url="file:///")
ODD = (b"\xff" * 4, bytes(4), b"\xff\xff\xff\x7f", b"\x01\x00\x00\x00", b"\x80", b"PK")


def zipped(files: Mapping[str, str], method: int) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", method) as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name), content, method)
    return packed.getvalue()


def weights() -> bytes:
    header = json.dumps({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}).encode()
    return struct.pack("<Q", len(header)) + header + bytes(8)


LABELLED = {"labels.csv": "file,labels\n1.png,a;b\n", "1.png": "x"}
UPLOADS = {
    "class folders": zipped({"a/1.png": "x" * 50, "b/1.png": "y"}, zipfile.ZIP_DEFLATED),
    "labels": zipped(LABELLED, zipfile.ZIP_BZIP2),
    "masks": zipped({"classes.txt": "a\nb", "images/1.png": "x", "masks/1.png": "y"}, zipfile.ZIP_LZMA),
    "stored": zipped(LABELLED, zipfile.ZIP_STORED),
    "weights": weights(),
}


@pytest.mark.parametrize("upload", UPLOADS)
def test_damage_is_refused_and_breaks_nothing(upload: str) -> None:
    chance = random.Random(upload)
    n_refused = 0
    for _ in range(1_000):
        content = damaged(UPLOADS[upload], chance)
        try:
            inspect(io.BytesIO(content), SETTINGS)
        except ThawError:
            n_refused += 1
        except Exception as error:
            raise AssertionError(content) from error
    assert n_refused > 100, "the damage reaches what is looked at"


def damaged(content: bytes, chance: random.Random) -> bytes:
    """The content with a few bytes changed, left out or put in."""
    changed = bytearray(content)
    for _ in range(chance.choice([1, 1, 2, 3, 8])):
        place = chance.randrange(max(1, len(changed)))
        odd = chance.choice([*ODD, chance.randbytes(chance.randrange(1, 30))])
        match chance.choice(["over", "over", "in", "out"]):
            case "over":
                changed[place : place + len(odd)] = odd
            case "in":
                changed[place:place] = odd
            case _:
                del changed[place : place + len(odd)]
    return bytes(changed)
