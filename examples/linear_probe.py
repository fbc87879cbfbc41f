"""How much does each layer of a frozen network tell? A logistic regression on the features of each answers.

    thaw up --data-dir .thaw/here                       # in another terminal
    export THAW_URL=http://127.0.0.1:8000 THAW_API_KEY=$(cat .thaw/here/admin-key)
    python examples/linear_probe.py                     # an untrained resnet18
    python examples/linear_probe.py ftjob-...           # what a job has learnt

It uploads scikit-learn's handwritten digits, has the features of 900 scans saved to learn from and of the
rest to be measured on, and prints a line a layer.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from digits import write_data_sets
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from thaw.activations import Activations, read_activations
from thaw.client import Thaw
from thaw.config import connection
from thaw.errors import ThawError

LAYERS = ["maxpool", "layer1", "layer2", "layer3", "layer4"]
IMAGE_SIZE = 32


def main() -> int:
    """0 when both extractions succeeded."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", nargs="?", default="resnet18", help="resnet18, or a job trained from it")
    arguments = parser.parse_args()
    try:
        found = connection()
        with TemporaryDirectory(prefix="thaw-probe-") as scratch, Thaw(found.url, found.api_key) as thaw:
            data = write_data_sets(Path(scratch) / "data")
            to_learn = extracted(thaw, arguments.model, data.digits, Path(scratch) / "to-learn")
            to_measure = extracted(thaw, arguments.model, data.rest, Path(scratch) / "to-measure")
            print_accuracies(to_learn, to_measure)
    except ThawError as error:
        print(f"The probe could not go on: {error}", file=sys.stderr)
        return 1
    return 0


def extracted(thaw: Thaw, model: str, pictures: Path, folder: Path) -> Activations:
    """The features of a folder of class folders, computed by the server and brought to `folder`."""
    job = thaw.jobs.extract(spec(model, thaw.files.upload(pictures).id))
    print(f"{job.id} extracts features of {pictures.name}", file=sys.stderr)
    ended = thaw.jobs.wait(job.id)
    if ended.status != "succeeded":
        raise ThawError(f"{job.id} {ended.status}: {ended.why_failed}")
    for artifact in list(thaw.jobs.artifacts(job.id)):
        thaw.jobs.download(job.id, artifact, folder)
    return read_activations(folder)


def spec(model: str, file: str) -> dict[str, Any]:
    """The body of an extraction: each layer's output, averaged over the picture."""
    asked: dict[str, Any] = {"model": model, "input_file": file, "modules": LAYERS, "pool": "mean"}
    if not model.startswith("ftjob-"):
        asked |= {"weights": "none", "preprocessing": {"image_size": IMAGE_SIZE}}
    return asked


def print_accuracies(to_learn: Activations, to_measure: Activations) -> None:
    """A line a layer: how many features it gives, and how often they name the right digit."""
    labels, true_labels = ([sample.label for sample in of.samples] for of in (to_learn, to_measure))
    print(f"{'layer':<10} {'features':>8}  right of {len(true_labels)} unseen scans")
    for layer in to_learn.modules:
        features = to_learn[layer]
        probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000)).fit(features, labels)
        print(f"{layer:<10} {features.shape[1]:>8}  {probe.score(to_measure[layer], true_labels):.1%}")


if __name__ == "__main__":
    sys.exit(main())
