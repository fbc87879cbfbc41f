"""What a Dockerfile would put into its image, laid out in a folder: no container, and nothing downloaded.

The image's packages are the installed distributions that its extra needs, by their own metadata, and no
others; its files are those that the Dockerfile copies. So what an image forgot is missing here too.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import threading
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Dockerfile:
    """The instructions of one Dockerfile, continued lines joined."""

    path: Path
    instructions: tuple[tuple[str, str], ...]

    @classmethod
    def read(cls, path: Path) -> Dockerfile:
        lines = [line for line in path.read_text().splitlines() if not line.lstrip().startswith("#")]
        joined = "\n".join(lines).replace("\\\n", " ")
        words = [line.strip().split(None, 1) for line in joined.splitlines() if line.strip()]
        return cls(path, tuple((word[0].upper(), word[1]) for word in words))

    def arguments(self, name: str) -> list[str]:
        return [argument for instruction, argument in self.instructions if instruction == name]

    @property
    def command(self) -> list[str]:
        (command,) = self.arguments("CMD")
        return list(json.loads(command))

    @property
    def pip_install(self) -> list[str]:
        (run,) = [run for run in self.arguments("RUN") if "pip install" in run]
        return shlex.split(run.partition("pip install")[2])

    @property
    def extra(self) -> str:
        """The one extra of pyproject that the image installs."""
        (extra,) = [match[1] for word in self.pip_install if (match := re.fullmatch(r"\.\[(\w+)\]", word))]
        return extra

    @property
    def copies(self) -> Iterator[tuple[str, str]]:
        """What is copied from the checkout into /app, and to where in it."""
        folder = ""
        for instruction, argument in self.instructions:
            if instruction == "FROM":
                folder = ""
            elif instruction == "WORKDIR":
                folder = argument
            elif instruction == "COPY" and not argument.startswith("--from") and folder == "/app":
                *sources, target = shlex.split(argument)
                yield from ((source, target) for source in sources)


@dataclass(frozen=True)
class ImageEnvironment:
    """An image's files and packages; `run` starts a program that sees these alone."""

    app: Path
    packages: Path

    @classmethod
    def build(cls, dockerfile: Dockerfile, folder: Path) -> ImageEnvironment:
        app, packages = folder / "app", folder / "packages"
        for source, target in dockerfile.copies:
            destination = app / target / (Path(source).name if target.endswith("/") else "")
            _link_tree(ROOT / source, destination)
        for found in distributions_of(dockerfile.extra):
            _link_distribution(found, packages)
        for package in _pyproject()["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]:
            _link_tree(ROOT / package, packages / package)
        return cls(app, packages)

    def run(
        self, *arguments: str, timeout_s: float = 120, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """A Python program in /app. `-S` keeps the interpreter from its own site-packages."""
        return subprocess.run(
            [sys.executable, "-S", "-B", *arguments],
            cwd=self.app,
            env=self._environment(environment),
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )

    def run_until(self, said: str, *arguments: str, timeout_s: float = 120, **environment: str) -> str:
        """Start a program, stop it when it has said `said`, and return all that it said."""
        program = subprocess.Popen(
            [sys.executable, "-S", "-B", *arguments],
            cwd=self.app,
            env=self._environment(environment),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        limit = threading.Timer(timeout_s, program.kill)
        limit.start()
        output = ""
        try:
            assert program.stdout is not None
            for line in program.stdout:
                output += line
                if said in line:
                    break
        finally:
            limit.cancel()
            program.kill()
            program.communicate()
        return output

    def _environment(self, more: dict[str, str]) -> dict[str, str]:
        return {"PATH": os.defpath, "HOME": str(self.app), "PYTHONPATH": str(self.packages), **more}


def distributions_of(extra: str) -> list[Distribution]:
    """The project's own requirements and the extra's, and what these require in turn."""
    project = _pyproject()["project"]
    waiting = [Requirement(text) for text in project["dependencies"]]
    waiting += [Requirement(f"{project['name']}[{extra}]")]
    seen: set[tuple[str, str]] = set()
    found: dict[str, Distribution] = {}
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        for wanted in ("", *requirement.extras):
            if (name, wanted) in seen:
                continue
            seen.add((name, wanted))
            if name == canonicalize_name(project["name"]):
                texts = project["optional-dependencies"][wanted] if wanted else []
            else:
                found[name] = _installed(name)
                texts = found[name].requires or []
            waiting += [needed for text in texts if _applies(needed := Requirement(text), wanted)]
    return [found[name] for name in sorted(found)]


def _applies(requirement: Requirement, extra: str) -> bool:
    return requirement.marker is None or requirement.marker.evaluate({"extra": extra})


def _installed(name: str) -> Distribution:
    try:
        return distribution(name)
    except PackageNotFoundError:
        raise AssertionError(f"{name} is required, and not installed here: run `make setup`") from None


def _link_distribution(found: Distribution, packages: Path) -> None:
    assert found.files is not None, f"{found.name} has no list of its files"
    for file in found.files:
        if file.parts[0] != "..":
            _link(Path(str(found.locate_file(file))), packages / file)


def _link_tree(source: Path, target: Path) -> None:
    assert source.exists(), f"a Dockerfile copies {source.name}, and there is no such file"
    paths = [source] if source.is_file() else [path for path in source.rglob("*") if path.is_file()]
    for path in paths:
        if "__pycache__" not in path.parts:
            _link(path, target / path.relative_to(source))


def _link(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.exists() and not target.exists():
        target.symlink_to(source)


def _pyproject() -> dict[str, dict]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())
