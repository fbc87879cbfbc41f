"""Archives on a node: unpacked below their folder and within their bounds, or refused."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import pytest
from given_inputs import CAPS, go_on, zipped

from shared.domain.archive import Caps
from shared.domain.errors import Invalid, TooLarge
from worker.unpack import unpack


def test_an_archive_becomes_class_folders_also_from_inside_one_folder_more(tmp_path: Path) -> None:
    archive = tmp_path / "data.zip"
    archive.write_bytes(
        zipped({"set/cat/1.png": b"c", "set/dog/1.png": b"d", "set/.DS_Store": b"", "__MACOSX/x": b""})
    )
    unpack(archive, tmp_path / "out", CAPS, go_on)
    files = {
        str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*") if path.is_file()
    }
    assert files == {"cat/1.png", "dog/1.png"}


@pytest.mark.parametrize(
    ("content", "error", "named"),
    [
        (zipped({"a/1.png": b"x", "../evil.png": b"x"}), Invalid, "../evil.png"),
        (zipped({"a/1.png": b"x", "/evil.png": b"x"}), Invalid, "/evil.png"),
        (zipped({"a/1.png": b"x"}, link="a/link.png"), Invalid, "a/link.png"),
        (b"no zip at all", Invalid, "zip"),
        (zipped({f"a/{n}.png": b"x" for n in range(1001)}), TooLarge, "1,001"),
    ],
)
def test_archives_that_are_refused(
    tmp_path: Path, content: bytes, error: type[Exception], named: str
) -> None:
    (tmp_path / "data.zip").write_bytes(content)
    with pytest.raises(error, match=named.replace(".", r"\.")):
        unpack(tmp_path / "data.zip", tmp_path / "out", CAPS, go_on)
    assert not list(tmp_path.rglob("evil.png"))


def test_a_member_that_lies_about_its_size_does_not_fill_the_disk(tmp_path: Path) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/1.png", bytes(3_000_000))
    honest = packed.getvalue()
    lying = honest.replace((3_000_000).to_bytes(4, "little"), (300_000).to_bytes(4, "little"))
    (tmp_path / "data.zip").write_bytes(lying)
    with pytest.raises((TooLarge, Invalid)):
        unpack(tmp_path / "data.zip", tmp_path / "out", Caps(10, 10_000_000, 10_000.0), go_on)
    assert sum(path.stat().st_size for path in (tmp_path / "out").rglob("*.png")) <= 300_000
