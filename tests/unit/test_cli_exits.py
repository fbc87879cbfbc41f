"""What a shell is told: exit codes, and one line on standard error."""

from __future__ import annotations

import fcntl
import hashlib
import os
import pty
import socket
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest
from scripted_server import Answer, Script, refused, scripted, told

ARTIFACTS = {"object": "list", "data": [{"name": "a", "bytes": 1, "sha256": "0"}], "has_more": False}
JOB = {"id": "ftjob-1", "model": "resnet18", "status": "failed", "phase": "failed"}


@pytest.fixture
def server() -> Iterator[Script]:
    with scripted() as script:
        yield script


def thaw(url: str, *arguments: str, home: Path, **env: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("THAW_")}
    given = {"THAW_URL": url, "THAW_API_KEY": "thaw_secret", "XDG_CONFIG_HOME": str(home)} | env
    command = [sys.executable, "-m", "thaw", *arguments]
    return subprocess.run(command, env=clean | given, capture_output=True, text=True, timeout=60, check=False)


def closed_port() -> str:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{unused.getsockname()[1]}"


def test_a_refusal_is_one_line_with_its_field_and_exit_3(server: Script, tmp_path: Path) -> None:
    job_file = tmp_path / "job.yaml"
    job_file.write_text("model: resnet81\ntraining_file: file-1\n")
    server.on("POST /v1/fine_tuning/jobs", refused(422, "no model 'resnet81'; near: resnet18", "model"))
    done = thaw(server.url, "submit", str(job_file), home=tmp_path)
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr == "thaw: model: no model 'resnet81'; near: resnet18\n"


def test_no_server_is_exit_4(tmp_path: Path) -> None:
    done = thaw(closed_port(), "list", home=tmp_path)
    assert (done.returncode, done.stdout) == (4, "")
    assert "cannot be reached" in done.stderr
    assert done.stderr.count("\n") == 1


def test_an_answer_that_is_cut_off_is_exit_4(server: Script, tmp_path: Path) -> None:
    server.on("GET /v1/fine_tuning/jobs/ftjob-1", Answer(b'{"id": "ftjob-1"', cut=True))
    assert thaw(server.url, "show", "ftjob-1", home=tmp_path).returncode == 4


def test_a_page_that_is_no_json_is_told_as_such(server: Script, tmp_path: Path) -> None:
    server.on("GET /v1/models", Answer(b"<html>", type="text/html"))
    done = thaw(server.url, "models", home=tmp_path)
    assert done.returncode == 3
    assert "is it a Thaw server?" in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["submit", "no-such.yaml"],
        ["lisst"],
        ["show"],
        ["list", "--limit", "0"],
        ["predict", "ftjob-1", "no.png"],
    ],
)
def test_a_wrong_command_line_is_exit_2(arguments: list[str], tmp_path: Path) -> None:
    done = thaw(closed_port(), *arguments, home=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr


def test_a_watched_job_that_failed_is_exit_1_with_its_reason(server: Script, tmp_path: Path) -> None:
    event = (
        'id: 1\ndata: {"type":"state","level":"error","message":"It failed.","created_at":1,"data":{}}\n\n'
    )
    empty = Answer(b"", type="text/event-stream")
    server.on(
        "GET /v1/fine_tuning/jobs/ftjob-1/events", Answer(event.encode(), type="text/event-stream"), empty
    )
    error = {"code": "bad_data", "message": "a.png cannot be read", "hint": "take it out"}
    error |= {
        "rank": 1,
        "node": "rack-2",
        "attempt": 2,
        "traceback": "Traceback:\n  in x.py\nUnreadable: no picture\n",
    }
    server.on("GET /v1/fine_tuning/jobs/ftjob-1", told({**JOB, "error": error}))
    done = thaw(server.url, "watch", "ftjob-1", home=tmp_path)
    assert done.returncode == 1
    assert "It failed." in done.stdout
    *traceback, last = done.stderr.splitlines()
    assert traceback == ["Traceback:", "  in x.py", "Unreadable: no picture"]
    assert last == "ftjob-1 failed (bad_data, rank 1, rack-2, try 2): a.png cannot be read; take it out"


def test_submit_prints_the_id_alone(server: Script, tmp_path: Path) -> None:
    job_file = tmp_path / "job.yaml"
    job_file.write_text("model: resnet18\ntraining_file: file-1\n")
    server.on("POST /v1/fine_tuning/jobs", told({**JOB, "status": "queued"}))
    done = thaw(server.url, "submit", str(job_file), "--set", "seed=3", home=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "ftjob-1\n", "")
    assert server.requests[-1].body == b'{"model":"resnet18","training_file":"file-1","seed":3}'
    assert server.requests[-1].headers["Authorization"] == "Bearer thaw_secret"


def test_a_job_without_a_result_is_no_success_to_download(server: Script, tmp_path: Path) -> None:
    path = "/v1/fine_tuning/jobs/ftjob-1"
    server.on(f"GET {path}", told(JOB))
    server.on(f"GET {path}/artifacts", told({"object": "list", "data": [], "has_more": False}))
    done = thaw(server.url, "download", "ftjob-1", "--to", str(tmp_path / "result"), home=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "thaw: ftjob-1 has no result: it is failed\n"


def test_a_log_alone_is_no_result(server: Script, tmp_path: Path) -> None:
    path = "/v1/fine_tuning/jobs/ftjob-1"
    log = {"name": "logs.txt", "bytes": 3, "sha256": hashlib.sha256(b"log").hexdigest()}
    server.on(f"GET {path}/artifacts", told({"data": [log], "has_more": False}))
    server.on(f"GET {path}/artifacts/logs.txt", Answer(b"log", type="text/plain"))
    folder = tmp_path / "result"
    server.on(f"GET {path}", told({**JOB, "status": "queued", "phase": "paused"}))
    done = thaw(server.url, "download", "ftjob-1", "--to", str(folder), home=tmp_path)
    assert (done.returncode, done.stdout, folder.exists()) == (2, "", False)
    assert done.stderr == "thaw: ftjob-1 has logs.txt so far and no whole result: it is paused\n"
    server.on(f"GET {path}", told(JOB))
    done = thaw(server.url, "download", "ftjob-1", "--to", str(folder), home=tmp_path)
    assert (done.returncode, (folder / "logs.txt").read_text()) == (0, "log")
    assert "ftjob-1 has no result: it is failed" in done.stderr


def test_what_cannot_be_read_or_sent_from_here_is_one_line(server: Script, tmp_path: Path) -> None:
    (tmp_path / "scans").mkdir()
    (tmp_path / "scans" / "cat").symlink_to(tmp_path)
    for arguments, env, words in (
        (("files", "put", str(tmp_path / "scans")), {}, "a link to a folder"),
        (("list",), {"THAW_API_KEY": "thaw_k\N{LATIN SMALL LETTER E WITH ACUTE}y"}, "copy it again"),
        (("download", "ftjob-1", "--to", "/proc/result"), {}, "/proc/result"),
    ):
        server.on("GET /v1/fine_tuning/jobs/ftjob-1/artifacts", told(ARTIFACTS))
        done = thaw(server.url, *arguments, home=tmp_path, **env)
        assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
        assert words in done.stderr


def test_a_refusal_that_names_its_field_is_not_prefixed_again(server: Script, tmp_path: Path) -> None:
    server.on("GET /v1/fine_tuning/jobs/ftjob-1", refused(422, "seed: must be less", "seed"))
    assert thaw(server.url, "show", "ftjob-1", home=tmp_path).stderr == "thaw: seed: must be less\n"


def test_a_profile_says_where_and_who(server: Script, tmp_path: Path) -> None:
    (tmp_path / "thaw").mkdir()
    (tmp_path / "key").write_text("thaw_stored\n")
    profile = f'[default]\nurl = "{server.url}"\nkey_file = "{tmp_path / "key"}"\n'
    (tmp_path / "thaw" / "config.toml").write_text(profile)
    server.on("GET /v1/files", told({"object": "list", "data": [], "has_more": False}))
    done = thaw("", "files", "list", "--json", home=tmp_path, THAW_API_KEY="")
    assert (done.returncode, done.stdout) == (0, "[]\n")
    assert server.requests[-1].headers["Authorization"] == "Bearer thaw_stored"


def test_a_profile_with_an_unknown_word_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thaw").mkdir()
    (tmp_path / "thaw" / "config.toml").write_text('[default]\nurl = "http://a"\napikey = "x"\n')
    done = thaw("", "list", home=tmp_path, THAW_API_KEY="")
    assert done.returncode == 2
    assert "unknown apikey" in done.stderr


def test_an_answer_of_another_service_is_told_as_such(server: Script, tmp_path: Path) -> None:
    for route in ("/v1/files", "/v1/models", "/v1/queue", "/v1/fine_tuning/jobs/ftjob-1"):
        server.on(f"GET {route}", told({"status": "ok"}))
    server.on("GET /v1/teams", told({"data": [{"id": "team-1"}], "has_more": False}))
    for command in (["files", "list"], ["models"], ["queue"], ["show", "ftjob-1"], ["team", "list"]):
        done = thaw(server.url, *command, home=tmp_path)
        assert done.returncode == 3, done.stderr
        assert done.stderr.endswith("is it a Thaw server?\n")
        assert done.stderr.count("\n") == 1


def test_what_others_have_named_does_not_steer_the_terminal(server: Script, tmp_path: Path) -> None:
    team = {"id": "team-1", "name": "a\x1b]0;mine\x07 :bomb:", "status": "active", "created_at": 1}
    server.on("GET /v1/teams", told({"data": [team], "has_more": False}))
    done = thaw(server.url, "team", "list", home=tmp_path)
    assert r"a\x1b]0;mine\x07 :bomb:" in done.stdout
    server.on("GET /v1/teams", refused(422, "not\x1b[2J so"))
    done = thaw(server.url, "team", "list", home=tmp_path)
    assert done.stderr == "thaw: not\\x1b[2J so\n"


def test_a_terminal_that_knows_ascii_alone_is_written_to(server: Script, tmp_path: Path) -> None:
    modules = [
        {"path": path, "class_name": "Café", "parameters": [], "buffers": []} for path in ("", "a", "a.b")
    ]
    layers = {"id": "m", "modules": modules, "head": [], "blocks": [], "aliases": {}}
    server.on("GET /v1/models/m/layers", told(layers))
    ascii_only = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "ascii"}
    for more in ([], ["--json"]):
        done = thaw(server.url, "models", "show", "m", *more, home=tmp_path, **ascii_only)
        assert (done.returncode, done.stderr) == (0, "")
        assert r"Caf\xe9" in done.stdout


def test_a_name_that_cannot_be_sent_is_exit_2(tmp_path: Path) -> None:
    done = thaw(closed_port(), "show", os.fsdecode(b"ftjob-\xff"), home=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    assert "Traceback" not in done.stderr


def test_a_reader_that_leaves_early_is_no_failure_to_tell_of(server: Script, tmp_path: Path) -> None:
    models = [{"id": f"model-{i}", "task": "classification", "owned_by": "x"} for i in range(5000)]
    server.on("GET /v1/models", told({"data": models, "has_more": False}))
    command = [sys.executable, "-m", "thaw", "--url", server.url, "models"]
    given = {**os.environ, "THAW_API_KEY": "thaw_secret", "XDG_CONFIG_HOME": str(tmp_path)}
    asked = subprocess.Popen(command, env=given, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert asked.stdout is not None
    assert asked.stderr is not None
    asked.stdout.readline()
    asked.stdout.close()
    assert asked.stderr.read() == b""
    assert asked.wait(timeout=60) in (0, 1)  # 0 where the pipe had taken all of it


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("http://[::1", "is none"),
        ("http://", "no host"),
        ("http://127.0.0.1:1/v1/", "as http://127.0.0.1:1\n"),
        ("ftp://127.0.0.1", "must begin with http:// or https://"),
    ],
)
def test_an_address_that_cannot_be_one_is_told_so(url: str, words: str, tmp_path: Path) -> None:
    done = thaw(url, "list", home=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert words in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_server_that_sends_elsewhere_says_where_to(server: Script, tmp_path: Path) -> None:
    elsewhere = {"Location": "https://thaw.example.org/v1/models"}
    server.on("GET /v1/models", Answer(b"", status=308, headers=elsewhere))
    done = thaw(server.url, "models", home=tmp_path)
    assert done.returncode == 3
    assert "https://thaw.example.org/v1/models" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["show", ""], "id is empty"),
        (["submit", "job.yaml", "--idempotency-key", "a\nb"], "printable ASCII"),
        (["submit", "photos.zip"], "a job file is YAML"),
        (["team", "quota", "set", "vision", "--weight", "nan"], "--weight nan"),
    ],
)
def test_what_cannot_be_meant_is_told_before_anything_is_sent(
    arguments: list[str], words: str, server: Script, tmp_path: Path
) -> None:
    (tmp_path / "job.yaml").write_text("model: resnet18\ntraining_file: file-1\n")
    (tmp_path / "photos.zip").write_bytes(b"PK\x03\x04\xff\xfa")
    quota = {"weight": 1.0, "quotas": [], "limits": {}, "team": "vision"}
    server.on("GET /v1/teams/vision/quota", told(quota))
    there = [str(tmp_path / one) if (tmp_path / one).is_file() else one for one in arguments]
    done = thaw(server.url, *there, home=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert words in done.stderr
    assert done.stderr.count("\n") == 1
    assert all(request.method == "GET" for request in server.requests)


def test_it_tells_its_version(tmp_path: Path) -> None:
    done = thaw(closed_port(), "--version", home=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{metadata.version('thaw')}\n", "")


def test_an_id_stays_whole_on_a_common_terminal(server: Script, tmp_path: Path) -> None:
    job = {
        **JOB,
        "id": "ftjob-w11g46tyn49ppxat3xr2dwtf",
        "model": "lraspp_mobilenet_v3_large",
        "created_at": 1,
    }
    server.on("GET /v1/fine_tuning/jobs", told({"data": [job], "has_more": False}))
    command = [sys.executable, "-m", "thaw", "--url", server.url, "list"]
    given = {**os.environ, "THAW_API_KEY": "thaw_secret", "XDG_CONFIG_HOME": str(tmp_path), "TERM": "dumb"}
    shown = on_a_terminal(command, given, columns=80)
    assert job["id"] in shown
    assert max(map(len, shown.splitlines())) <= 80


def on_a_terminal(command: list[str], env: dict[str, str], *, columns: int) -> str:
    """What a program writes to a terminal of 24 lines."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("4H", 24, columns, 0, 0))
    process = subprocess.Popen(command, env=env, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    shown = b""
    try:
        while piece := os.read(ours, 65_536):
            shown += piece
    except OSError:
        pass  # so a terminal says that nobody writes to it any more
    os.close(ours)
    assert process.wait(timeout=60) == 0, shown
    return shown.decode()
