"""Each task through the whole stack as its example asks: from a folder on disk to what its model says."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from stacks import Stack
from test_cli import ROOT, thaw

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The examples' data sets, as their programs write them."""
    folder = tmp_path_factory.mktemp("data")
    for program in ("digits.py", "task_digits.py"):
        command = [sys.executable, str(ROOT / "examples" / program), str(folder)]
        subprocess.run(command, check=True, capture_output=True)
    return folder


def trained(stack: Stack, home: Path, data: Path, example: str, files: tuple[str, str], *changes: str) -> str:
    """The id of the example's job, done, on the data sets of a test's own."""
    training, validation = (str(data / name) for name in files)
    told = [f"training_file={training}", f"validation_file={validation}", *changes]
    options = [option for change in told for option in ("--set", change)]
    done = thaw(
        stack, home, "submit", ROOT / f"examples/jobs/{example}.yaml", "--watch", *options, limit_s=180
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def said(stack: Stack, home: Path, job_id: str, *pictures: Path) -> list[dict[str, Any]]:
    found = thaw(stack, home, "predict", job_id, *pictures, "--out", home / "made", "--json")
    assert found.returncode == 0, found.stderr
    answers: list[dict[str, Any]] = json.loads(found.stdout)
    return answers


def test_multilabel(stack: Stack, home: Path, data: Path) -> None:
    job = trained(stack, home, data, "multilabel", ("pairs", "more-pairs"))

    shown = thaw(stack, home, "show", job).stdout
    assert "held-out mean average precision 0.9" in shown
    assert "unchanged: 4 parameters" in shown
    assert "mean average precision" in thaw(stack, home, "metrics", job).stdout.splitlines()[0]
    found = thaw(stack, home, "predict", job, data / "more-pairs" / "0000.png", "--json")
    (answer,) = json.loads(found.stdout)
    assert set(answer["labels"]) == {name for name, p in answer["probabilities"].items() if p >= 0.5}
    refused = thaw(stack, home, "predict", job, data / "more-pairs" / "0000.png", "--out", home)
    assert (refused.returncode, "makes none" in refused.stderr) == (2, True)


def test_reconstruction_of_one_half_and_then_of_the_other(stack: Stack, home: Path, data: Path) -> None:
    files = ("digits", "rest-digits")
    decoder = trained(stack, home, data, "reconstruction-decoder", files)
    encoder = trained(stack, home, data, "reconstruction-encoder", files, f"model={decoder}", "weights=null")

    first, second = (
        json.loads(thaw(stack, home, "show", job, "--json").stdout) for job in (decoder, encoder)
    )
    psnr = [job["result"]["evaluation"]["metrics"]["psnr_db"] for job in (first, second)]
    assert 18 < psnr[0] < psnr[1]
    (answer,) = said(stack, home, encoder, next((data / "rest-digits" / "3").iterdir()))
    assert answer["psnr_db"] > 15
    with Image.open(answer["written"]) as made:
        assert (made.size, made.mode) == ((16, 16), "RGB")


def test_segmentation(stack: Stack, home: Path, data: Path) -> None:
    """On random weights, as none can be fetched here: what it learns is little, and what it freezes stays."""
    quick = ("weights=none", "hyperparameters.n_epochs=1", "preprocessing.image_size=64")
    job = trained(stack, home, data, "segmentation", ("outlines", "more-outlines"), *quick)

    shown = thaw(stack, home, "show", job).stdout
    assert "held-out mean iou" in shown
    assert "unchanged" in shown
    picture = next((data / "more-outlines" / "images").iterdir())
    (answer,) = said(stack, home, job, picture)
    assert sum(answer["shares"].values()) == pytest.approx(1, abs=0.001)
    assert Path(answer["written"]).name == f"{picture.stem}-mask.png"
    with Image.open(answer["written"]) as mask:
        assert (mask.size, mask.mode) == ((32, 32), "P")
