"""Files over HTTP: what is taken, what is refused, and that a refused one leaves nothing behind."""

from __future__ import annotations

import hashlib
import io
import stat
import struct
import zipfile
from collections.abc import Iterator

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from api_house import (
    ApiHouse,
    api_on,
    class_folders,
    parquet_of,
    refused,
    safetensors_of,
    zip_of,
)

from shared.db.models import File
from shared.domain.job import JobState
from shared.settings import Settings

PICTURES = [b"a", b"b", b"c"]
STRUCT = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
NO_TEXT = pa.Array.from_buffers(pa.string(), 3, pa.array([b"a", b"\xff", b"c"]).buffers())


@pytest.fixture
def api(settings: Settings) -> Iterator[ApiHouse]:
    small = {"max_upload_bytes": 200_000, "max_archive_files": 50, "max_unpacked_bytes": 1_000_000}
    with api_on(settings.model_copy(update=small)) as house:
        yield house


def test_a_zip_of_class_folders_is_kept_with_what_is_in_it(api: ApiHouse) -> None:
    content = class_folders("dog", "cat", samples=2)
    answer = api.upload(content, "pets.zip")

    assert answer.status_code == 200, answer.text
    file = answer.json()
    assert file["object"] == "file"
    assert file["filename"] == "pets.zip"
    assert file["bytes"] == len(content)
    assert file["sha256"] == hashlib.sha256(content).hexdigest()
    assert file["format"] == "image_folder"
    assert file["details"]["class_names"] == ["cat", "dog"]
    assert file["details"]["samples_per_class"] == {"cat": 2, "dog": 2}
    assert api.client.get(f"/v1/files/{file['id']}").json() == file
    assert api.client.get(f"/v1/files/{file['id']}/content").content == content


def test_a_wrapping_folder_and_the_leavings_of_other_systems_are_ignored(api: ApiHouse) -> None:
    answer = api.upload(
        zip_of(
            {
                "pets/cat/1.png": b"x",
                "pets/dog/1.JPG": b"x",
                "pets/cat/Thumbs.db": b"x",
                "pets/.DS_Store": b"x",
                "__MACOSX/pets/cat/._1.png": b"x",
            }
        )
    )

    assert answer.json()["details"]["class_names"] == ["cat", "dog"]
    assert answer.json()["details"]["n_ignored"] == 3


@pytest.mark.parametrize(
    ("labels", "class_names"), [(["b", "a", "b"], ["a", "b"]), ([10, 9, 10], ["9", "10"])]
)
def test_a_parquet_file_is_kept_with_its_columns(
    api: ApiHouse, labels: list[object], class_names: list[str]
) -> None:
    pictures = [{"bytes": picture, "path": None} for picture in PICTURES]
    details = api.upload(parquet_of({"image": pictures, "label": labels, "id": [1.0, 2.0, 3.0]})).json()[
        "details"
    ]

    assert details["image_column"] == "image"
    assert details["label_column"] == "label"
    assert details["class_names"] == class_names
    assert details["n_samples"] == 3


@pytest.mark.parametrize("statistics", [True, False])
def test_a_row_without_a_picture_is_left_to_training(api: ApiHouse, statistics: bool) -> None:
    pictures = pa.array([None, {"bytes": b"x", "path": None}], STRUCT)
    content = io.BytesIO()
    pq.write_table(
        pa.table({"image": pictures, "label": [1, 2]}), content, write_statistics=statistics, row_group_size=1
    )
    assert api.upload(content.getvalue()).json()["details"]["n_samples"] == 2


def test_weights_are_kept(api: ApiHouse) -> None:
    file = api.upload(safetensors_of({"fc.weight": [10, 16], "fc.bias": [10]}), "m.safetensors").json()

    assert file["format"] == "weights"
    assert file["details"] == {"n_tensors": 2}


def _link() -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        info = zipfile.ZipInfo("cat/1.png")
        info.create_system = 3
        info.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(info, "/etc/passwd")
    return packed.getvalue()


def _encrypted() -> bytes:
    content = bytearray(class_folders("cat", "dog"))
    at = content.index(b"PK\x01\x02")
    content[at + 8] |= 0x1
    return bytes(content)


def _begins_before_itself() -> bytes:
    """The index states that it begins 200 bytes further on than it does, and its members as much before."""
    content = bytearray(zip_of({"labels.csv": b"file,labels\n1.png,a\n", "1.png": b"x"}))
    end = content.index(b"PK\x05\x06")
    struct.pack_into("<L", content, end + 16, struct.unpack_from("<L", content, end + 16)[0] + 200)
    return bytes(content)


REFUSED = {
    "text": (b"hello there", "a zip of class folders", "safetensors"),
    "empty": (b"", "a zip of class folders"),
    "cut-off zip": (class_folders("cat", "dog")[:-30], "no whole zip archive"),
    "empty zip": (zip_of({}), "holds no pictures"),
    "pictures at the top": (zip_of({"1.png": b"x", "2.png": b"x"}), "'1.png'", "no class folder"),
    "too deep": (
        zip_of({"train/cat/1.png": b"x", "test/cat/1.png": b"x"}),
        "lies too deep",
        "two archives",
    ),
    "no picture": (zip_of({"cat/1.png": b"x", "cat/notes.txt": b"x"}), "'cat/notes.txt'", ".jpeg"),
    "climbs out": (zip_of({"cat/../../x.png": b"x"}), "'cat/../../x.png'", "leads out"),
    "absolute": (zip_of({"/cat/x.png": b"x"}), "'/cat/x.png'", "leads out"),
    "link": (_link(), "'cat/1.png'", "link"),
    "encrypted": (_encrypted(), "'cat/0.png'", "encrypted"),
    "outside": (_begins_before_itself(), "outside of the archive"),
    "twice": (zip_of({"cat/1.png": b"x", "cat/./1.png": b"x"}), "'cat/1.png'", "2 times"),
    "no label column": (parquet_of({"image": PICTURES}), "label", "image (binary)"),
    "no image column": (parquet_of({"picture": ["a"], "label": [1]}), "pictures", "picture (string)"),
    "a row without a label": (parquet_of({"image": PICTURES, "label": [1, None, 2]}), "without a label"),
    "no picture in any row": (
        parquet_of({"image": pa.array([None] * 3, pa.binary()), "label": [1, 2, 3]}),
        "column 'image' holds no picture",
        "3 rows",
    ),
    "no picture in any struct": (
        parquet_of({"img": pa.array([{"bytes": None, "path": "1.png"}, None], STRUCT), "label": [1, 2]}),
        "column 'img' holds no picture",
    ),
    "no text": (parquet_of({"image": PICTURES, "label": NO_TEXT}), "no readable Parquet"),
    "a label without a letter": (parquet_of({"image": PICTURES, "label": ["", "a", "b"]}), "the label ''"),
    "no rows": (parquet_of({"image": PICTURES, "label": [1, 2, 3]})[:200], "Parquet"),
    "cut-off weights": (safetensors_of({"a": [100]})[:-8], "'a'", "cut off"),
}
TOO_LARGE = {
    "ratio": (zip_of({"cat/1.png": bytes(500_000)}), "times its size"),
    "files": (zip_of({f"cat/{i}.png": b"x" for i in range(51)}), "51 members", "50"),
    "unpacked bytes": (
        zip_of({f"cat/{i}.png": bytes(90_000) + b"%d" % i for i in range(12)}),
        "1,000,000",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_bad_file_is_refused_and_leaves_nothing(api: ApiHouse, case: str) -> None:
    content, *words = REFUSED[case]
    refused(api.upload(content), 422, "file", *words)
    assert api.count(File) == 0
    assert api.stored_bytes() == []


@pytest.mark.parametrize("case", TOO_LARGE)
def test_an_archive_past_a_cap_is_refused_and_leaves_nothing(api: ApiHouse, case: str) -> None:
    content, *words = TOO_LARGE[case]
    refused(api.upload(content), 413, "file", *words)
    assert api.count(File) == 0
    assert api.stored_bytes() == []


def test_an_upload_past_the_cap_is_refused_whether_or_not_it_says_its_length(api: ApiHouse) -> None:
    refused(api.upload(bytes(300_000)), 413, None, "265,536 bytes")

    boundary = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.zip"\r\n\r\n'
    unsaid = api.client.post(
        "/v1/files",
        content=iter([boundary, *[bytes(50_000)] * 6]),
        headers={"Content-Type": "multipart/form-data; boundary=x"},
    )
    refused(unsaid, 413, None, "265,536 bytes")
    assert api.stored_bytes() == []


def test_a_form_that_is_not_whole_is_refused(api: ApiHouse) -> None:
    file = {"file": ("a.zip", class_folders("cat", "dog"))}
    post = api.client.post

    refused(post("/v1/files", files=file), 422, "purpose", "fine-tune")
    refused(
        post("/v1/files", files=file, data={"purpose": "batch"}), 422, "purpose", "'batch'", "'fine-tune'"
    )
    refused(post("/v1/files", data={"purpose": "fine-tune"}), 422, "file", "file name")
    refused(post("/v1/files", files=file, data={"purpose": "fine-tune", "x": "1"}), 422, "x", "no field")
    refused(post("/v1/files", json={"file": 1}), 422, "file")
    assert api.stored_bytes() == []


def test_files_are_listed_a_page_at_a_time(api: ApiHouse) -> None:
    ids = [api.data_set("cat", "dog", samples=n) for n in (1, 2, 3)]

    first = api.client.get("/v1/files", params={"limit": 2}).json()
    assert [file["id"] for file in first["data"]] == [ids[2], ids[1]]
    assert first["has_more"] is True
    rest = api.client.get("/v1/files", params={"limit": 2, "after": first["last_id"]}).json()
    assert [file["id"] for file in rest["data"]] == [ids[0]]
    assert rest["has_more"] is False
    oldest = api.client.get("/v1/files", params={"order": "asc", "limit": 1}).json()
    assert oldest["data"][0]["id"] == ids[0]


def test_a_file_in_use_stays_and_goes_once_its_job_is_over(api: ApiHouse) -> None:
    file = api.data_set("cat", "dog")
    job = api.job(training_file=file)["id"]
    path = f"/v1/files/{file}"

    refused(api.client.delete(path), 409, None, job)
    assert api.client.get(path).status_code == 200
    api.move(job, JobState.CANCELLED)
    assert api.client.delete(path).json() == {"id": file, "object": "file", "deleted": True}
    assert api.client.get(path).status_code == 404
    assert api.stored_bytes() == []
    refused(api.submit(training_file=file), 422, "training_file", file)


def test_parts_of_a_file_can_be_asked_for(api: ApiHouse) -> None:
    content = class_folders("cat", "dog")
    path = f"/v1/files/{api.upload(content).json()['id']}/content"

    part = api.client.get(path, headers={"Range": "bytes=4-9"})
    assert part.status_code == 206
    assert part.content == content[4:10]
    assert part.headers["Content-Range"] == f"bytes 4-9/{len(content)}"
    assert api.client.get(path, headers={"Range": "bytes=-5"}).content == content[-5:]
    assert api.client.get(path, headers={"Range": "bytes=10-"}).content == content[10:]
    beyond = api.client.get(path, headers={"Range": f"bytes={len(content)}-"})
    refused(beyond, 416, "Range", str(len(content)))
