"""A job's model made again from its base and from what the job trained, bit for bit.

from thaw.rebuilding import rebuild

rebuild(Path("ftjob-123"), base=Path("resnet18-f37072fd.pth"))     # writes ftjob-123/model.safetensors

Of the folder it reads model.json and trainable.safetensors. A base that is a safetensors file takes this
package alone; one that torchvision published, and random weights, take the extra `thaw[torch]`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from thaw.delta import Delta, Source, read_delta
from thaw.errors import UsageError
from thaw.packing import file_sha256
from thaw.tensor_file import LENGTH_BYTES, Entry, TensorFile
from thaw.torch_extra import needs_torch
from thaw.whole_files import written_whole

# What torch, in whose words the trainer hashes, calls the types of safetensors.
_TORCH_TYPES = {
    "BOOL": "bool",
    "U8": "uint8",
    "I8": "int8",
    "U16": "uint16",
    "I16": "int16",
    "U32": "uint32",
    "I32": "int32",
    "U64": "uint64",
    "I64": "int64",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
    "F16": "float16",
    "BF16": "bfloat16",
    "F32": "float32",
    "F64": "float64",
    "C64": "complex64",
}

Sources = Mapping[str, Source]


def rebuild(folder: Path, base: Path | None = None, out: Path | None = None) -> Path:
    """The job's model.safetensors, in `folder` or at `out`: the very file that the job wrote, or an error.

    `base` is the file that the job began from; it is left out where the weights were random, and where all of
    the model was trained. Raises UsageError for another base, for a damaged or another job's
    trainable.safetensors, and for what does not come out bit for bit; nothing is left in place then.
    """
    delta = read_delta(folder)
    target = out or folder / Path(delta.model_file).name
    if base is not None:
        _check_base(delta, base)
    if not is_rebuilt(delta, target):
        target.parent.mkdir(parents=True, exist_ok=True)
        with _base_tensors(delta, base, target.parent) as tensors:
            sources = delta.sources(tensors)
            _check_state(delta, sources)
            _write(delta, sources, target)
    return target


def is_rebuilt(delta: Delta, target: Path) -> bool:
    """Whether the model is there already."""
    return target.is_file() and file_sha256(target) == delta.model_sha256


def _check_base(delta: Delta, base: Path) -> None:
    if not delta.needs_file:
        why = f"it began from {delta.base.words}" if delta.taken else "all of its model was trained"
        raise UsageError(f"{delta.job_id} is rebuilt without a file: {why}; leave {base} out")
    try:
        found = file_sha256(base)
    except OSError as error:
        raise UsageError(f"the base {base} cannot be read: {error}") from error
    if found != delta.base.sha256:
        raise UsageError(
            f"{base} is not what {delta.job_id} began from, {delta.base.words}: its SHA-256 is {found}, and "
            f"{delta.base.sha256} is wanted"
        )


@contextmanager
def _base_tensors(delta: Delta, base: Path | None, scratch: Path) -> Iterator[TensorFile | None]:
    """The base as a safetensors file; None where nothing is taken from it."""
    if base is None and delta.needs_file:
        raise UsageError(
            f"{delta.job_id} began from {delta.base.words}: name that file, SHA-256 {delta.base.sha256}"
        )
    if not delta.taken:
        yield None
    elif base is not None and delta.base.format == "safetensors":
        yield TensorFile.read(base)
    else:
        with TemporaryDirectory(prefix=".thaw-", dir=scratch) as folder:
            yield _made_by_torch(delta, base, Path(folder) / "base.safetensors")


def _made_by_torch(delta: Delta, base: Path | None, target: Path) -> TensorFile:
    with needs_torch(f"to rebuild {delta.job_id} from {delta.base.words}"):
        from thaw import torch_bases  # noqa: PLC0415  # an extra
    if base is not None:
        torch_bases.write_published(base, target)
    else:
        torch_bases.write_random(delta.base.raw, delta.card["preprocessing"], target)
    return TensorFile.read(target)


def _check_state(delta: Delta, sources: Sources) -> None:
    """The very tensors that the job had frozen, whatever file they come from."""
    whole = hashlib.sha256()
    for name in sorted(delta.taken):
        whole.update(name.encode() + b"\0" + _digest(sources[name], delta.model.entries[name]))
    if whole.hexdigest() != delta.base.state_sha256:
        raise UsageError(
            f"what {delta.job_id} takes from {delta.base.words} has the hash {whole.hexdigest()} here, and "
            f"{delta.base.state_sha256} is wanted{_hint(delta)}"
        )


def _digest(source: Source, entry: Entry) -> bytes:
    """Over type, shape and bytes, as in the trainer's proof of the frozen part."""
    digest = hashlib.sha256(f"torch.{_TORCH_TYPES.get(entry.dtype)} {entry.shape} ".encode())
    for piece in source.file.pieces(source.name):
        digest.update(piece)
    return digest.digest()


def _hint(delta: Delta) -> str:
    if delta.base.format is not None:
        return ""
    made_by = ", ".join(f"{name} {delta.card['versions'].get(name)}" for name in ("torch", "torchvision"))
    return (
        f"; random weights come out the same with the same versions only, {made_by}. "
        f"`thaw download {delta.job_id}` brings the whole model"
    )


def _write(delta: Delta, sources: Sources, target: Path) -> None:
    digest = hashlib.sha256()
    with written_whole(target) as out:
        for piece in _pieces(delta, sources):
            out.write(piece)
            digest.update(piece)
        if digest.hexdigest() != delta.model_sha256:
            raise UsageError(
                f"the model comes out with SHA-256 {digest.hexdigest()}, and {delta.job_id} wrote "
                f"{delta.model_sha256}; it is not kept"
            )


def _pieces(delta: Delta, sources: Sources) -> Iterator[bytes]:
    header = delta.file.header.metadata["model_header"].encode()
    yield len(header).to_bytes(LENGTH_BYTES, "little")
    yield header
    for source in sources.values():
        yield from source.file.pieces(source.name)
