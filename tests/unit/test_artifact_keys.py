"""Where things lie in the store: keys, what each tells, and the addresses of stores that are refused."""

from __future__ import annotations

import pytest

from shared.artifacts import BadKey, StoreOptions, keys, open_store
from shared.domain.errors import Invalid
from shared.domain.sweeping import AttemptPlace, Part, Place, UploadPlace


@pytest.mark.parametrize(
    "url",
    ["", "folder", "file://", "file:///", "file://host/folder", "file:relative", "s3://", "s3:///key",
     "ftp://host/x", "s3://bucket/../x", "s3://bucket/a?region=x", "s3://id:secret@bucket/x"],
)  # fmt: skip
def test_a_bad_address_is_refused_without_showing_secrets(url: str) -> None:
    with pytest.raises(Invalid) as raised:
        open_store(url)
    assert "secret" not in str(raised.value)


def test_half_of_the_credentials_is_an_error() -> None:
    with pytest.raises(Invalid, match="neither"):
        open_store("s3://bucket", StoreOptions(access_key_id="id"))


def test_the_layout_of_keys() -> None:
    assert keys.file_key("t", "file-1") == "teams/t/files/file-1"
    assert keys.job_prefix("t", "ftjob-1") == "teams/t/jobs/ftjob-1"
    assert keys.attempt_prefix("t", "ftjob-1", "a") == "teams/t/jobs/ftjob-1/attempts/a"
    assert keys.checkpoint_prefix("t", "j", "a", 12) == "teams/t/jobs/j/attempts/a/checkpoints/step-000000012"
    assert keys.artifact_key("t", "j", "a", "model.json") == "teams/t/jobs/j/attempts/a/artifacts/model.json"
    with pytest.raises(BadKey):
        keys.artifact_key("t", "j", "a", "../../../other/secret")


@pytest.mark.parametrize(
    ("key", "place"),
    [
        (keys.file_key("t", "file-1"), UploadPlace("t", "file-1")),
        (
            keys.artifact_key("t", "ftjob-1", "attempt-1", "activations/shard-00000.safetensors"),
            AttemptPlace("t", "ftjob-1", "attempt-1", Part.ARTIFACTS, "activations/shard-00000.safetensors"),
        ),
        (
            f"{keys.checkpoint_prefix('t', 'j', 'attempt-1', 12)}/state.pt",
            AttemptPlace("t", "j", "attempt-1", Part.CHECKPOINTS, "step-000000012/state.pt"),
        ),
        (keys.job_prefix("t", "ftjob-1"), None),
        (keys.checkpoint_prefix("t", "j", "attempt-1", 12), None),
        ("somebody/else", None),
    ],
)
def test_a_key_tells_what_lies_there(key: str, place: Place | None) -> None:
    assert keys.place_of(key) == place
