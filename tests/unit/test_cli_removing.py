"""`thaw rm`: a job that is over is removed without a word, and a refusal is told in one line."""

from __future__ import annotations

from pathlib import Path

import pytest
from scripted_server import refused, scripted, told
from test_cli_exits import thaw


@pytest.mark.parametrize(
    ("job_id", "path"),
    [("ftjob-1", "/v1/fine_tuning/jobs/ftjob-1"), ("fxjob-1", "/v1/feature_extraction/jobs/fxjob-1")],
)
def test_a_job_of_either_kind_is_removed(job_id: str, path: str, tmp_path: Path) -> None:
    with scripted() as server:
        server.on(f"DELETE {path}", told({"id": job_id, "deleted": True}))
        done = thaw(server.url, "rm", job_id, home=tmp_path)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        assert [(request.method, request.path) for request in server.requests] == [("DELETE", path)]


def test_a_job_that_is_needed_stays(tmp_path: Path) -> None:
    with scripted() as server:
        server.on("DELETE /v1/fine_tuning/jobs/ftjob-1", refused(409, "job ftjob-2 goes on from its result"))
        done = thaw(server.url, "rm", "ftjob-1", home=tmp_path)
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr == "thaw: job ftjob-2 goes on from its result\n"
