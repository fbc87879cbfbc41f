"""A GAN on a running server: both halves in turn, then each alone while the other stays frozen.

    thaw up --data-dir .thaw/here
    export THAW_URL=http://127.0.0.1:8000 THAW_API_KEY=$(cat .thaw/here/admin-key)
    python examples/gan.py [FOLDER]

The results come to FOLDER (.thaw/gan), and with them digits.png: real scans, and what the generators draw.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from board import follow_all
from digits import write_data_sets
from PIL import Image
from report import read_result
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from safetensors.torch import load_file
from torch import Tensor
from torch.nn.functional import pad

from thaw.client import Thaw
from thaw.config import connection
from thaw.errors import ThawError
from thaw.jobfile import load
from thaw.shapes import Job
from thaw.torch import load_model, read_image

JOBS = Path(__file__).parent / "jobs"
BOTH, GENERATOR_ONLY, DISCRIMINATOR_ONLY = "gan", "gan-generator-only", "gan-discriminator-only"
FROZEN_IN = {GENERATOR_ONLY: "discriminator", DISCRIMINATOR_ONLY: "generator"}
SIDE, ENLARGED, GAP = 8, 4, 8


def main(folder: Path) -> int:
    """0 when every job succeeded and each frozen half is the same in every bit."""
    console = Console(width=None if sys.stdout.isatty() else 150, highlight=False, markup=False)
    try:
        where = connection()
        with Thaw(where.url, where.api_key) as thaw:
            ended = run(thaw, folder, console)
            if not all(job.status == "succeeded" for job in ended.values()):
                console.print({name: job.why_failed or job.status for name, job in ended.items()})
                return 1
            for name, job in ended.items():
                for artifact in thaw.jobs.artifacts(job.id):
                    thaw.jobs.download(job.id, artifact, folder / name)
    except ThawError as error:
        console.print(f"The example could not go on: {error}")
        return 1
    console.print(proofs(folder))
    same = [halves_are_the_same(folder, name, console) for name in FROZEN_IN]
    write_grid(folder)
    console.print(f"{folder / 'digits.png'}: real scans, what {BOTH} draws, what {GENERATOR_ONLY} draws")
    return 0 if all(same) else 1


def run(thaw: Thaw, folder: Path, console: Console) -> dict[str, Job]:
    """Uploads the scans and follows the three jobs; the two with a frozen half go on from the first."""
    scans = thaw.files.upload(write_data_sets(folder / "data").digits).id
    both = thaw.jobs.create({**load(JOBS / f"{BOTH}.yaml"), "training_file": scans}).id
    going_on = {"training_file": scans, "model": both, "weights": None, "wait_for_model": True}
    ids = {BOTH: both}
    for name in FROZEN_IN:
        ids[name] = thaw.jobs.create({**load(JOBS / f"{name}.yaml"), **going_on}).id
    return follow_all(thaw, ids, console)


def proofs(folder: Path) -> Table:
    """What each training step of each job says of its frozen half."""
    columns = ("job", "step", "trains", "frozen in it", "compared", "first hash", "last hash", "same")
    table = Table(*columns, box=SIMPLE_HEAD)
    for name in (BOTH, *FROZEN_IN):
        for step in steps_of(read_result(folder / name / "result.json")):
            table.add_row(
                name,
                step["name"],
                f"{step['n_trainable']:,}",
                f"{step['n_frozen']:,}",
                f"{step['n_parameters'] + step['n_buffers']} tensors, {step['n_checks']:,}x",
                in_short(step["first"]),
                in_short(step["last"]),
                "yes" if step["unchanged"] else "NO",
            )
    return table


def steps_of(result: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    for phase in result["phases"]:
        yield from phase["steps"]


def in_short(digests: Mapping[str, Any]) -> str:
    """The hash before a step and after it."""
    return f"{digests['before'][:8]} = {digests['after'][:8]}"


def halves_are_the_same(folder: Path, name: str, console: Console) -> bool:
    """Compares the half that the job froze with the one it began from, here, on the weights themselves."""
    half = FROZEN_IN[name]
    before, after = (load_file(folder / job / "model.safetensors") for job in (BOTH, name))
    frozen = [tensor for tensor in before if tensor.startswith(f"{half}.")]
    moved = [tensor for tensor in frozen if not torch.equal(before[tensor], after[tensor])]
    learnt = [tensor for tensor in before if not torch.equal(before[tensor], after[tensor])]
    console.print(
        f"{name}: of the frozen {half} {len(moved)} of {len(frozen)} tensors moved, "
        f"of the other half {len(learnt) - len(moved)} of {len(before) - len(frozen)}"
    )
    return not moved


def write_grid(folder: Path) -> None:
    """digits.png: a square of real scans, and one of what each of two generators draws of the same noise."""
    card = load_model(folder / BOTH).card
    scans = sorted((folder / "data" / "digits").rglob("*.png"))[:: 900 // SIDE**2][: SIDE**2]
    squares = [torch.stack([read_image(path, card["preprocessing"]) for path in scans])]
    for name in (BOTH, GENERATOR_ONLY):
        torch.manual_seed(0)
        with torch.no_grad():
            squares.append(load_model(folder / name).network.generate(SIDE**2))
    drawn = [enlarged(square) for square in squares]
    grid = Image.new("L", (len(drawn) * (drawn[0].width + GAP) - GAP, drawn[0].height), 255)
    for number, square in enumerate(drawn):
        grid.paste(square, (number * (square.width + GAP), 0))
    grid.save(folder / "digits.png")


def enlarged(pictures: Tensor) -> Image.Image:
    """Grey pictures [n, 3, height, width] with values from 0 to 1 as one square picture."""
    framed = pad(pictures[:, 0], (0, 1, 0, 1), value=0.5)
    height, width = framed.shape[-2:]
    rows = framed.view(SIDE, SIDE, height, width).permute(0, 2, 1, 3)
    pixels = rows.reshape(SIDE * height, SIDE * width).mul(255).round().byte().numpy()
    whole = Image.fromarray(pixels)
    return whole.resize((whole.width * ENLARGED, whole.height * ENLARGED), Image.Resampling.NEAREST)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1] if len(sys.argv) > 1 else ".thaw/gan")))
