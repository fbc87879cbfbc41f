"""What tests of a run's inputs share: an archive made on the spot, its bounds, and a run that goes on."""

from __future__ import annotations

import io
import stat
import zipfile

from shared.domain.archive import Caps

CAPS = Caps(files=1000, unpacked_bytes=10_000_000, ratio=200.0)


def go_on() -> None:
    """Nothing asks to stop."""


def zipped(members: dict[str, bytes], *, link: str | None = None) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
        if link is not None:
            info = zipfile.ZipInfo(link)
            info.external_attr = (stat.S_IFLNK | 0o777) << 16
            archive.writestr(info, "/etc/passwd")
    return packed.getvalue()
