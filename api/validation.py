"""From pydantic's errors to one sentence a person can act on, and the dotted path of the field."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from reprlib import Repr
from typing import Any, get_args

from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel

_SHOWN_CHARACTERS = 60
_SHOWN_ERRORS = 20
# repr() itself would not come back from a value nested as deeply as JSON allows.
_shortened = Repr()
_shortened.maxlevel = 3
_shortened.maxstring = _shortened.maxother = _SHOWN_CHARACTERS
_GOT = " (got "
_UNREADABLE = ("invalid_json", "invalid_body")


@dataclass(frozen=True)
class Explained:
    """The parts of the envelope."""

    message: str
    param: str | None
    code: str

    @property
    def is_unreadable(self) -> bool:
        """Whether there is no JSON object at all, rather than one with something wrong in it."""
        return self.code in _UNREADABLE


def explain(error: RequestValidationError, route: Any) -> Explained:
    """Say what is wrong with a request that does not have the shape that its route asks for."""
    errors = error.errors()
    if errors[0]["type"] == "json_invalid":
        return Explained(f"the body is no JSON: {errors[0]['ctx']['error']}", None, "invalid_json")
    if errors[0]["loc"][0] == "body" and not isinstance(error.body, dict):
        return Explained(
            "the body must be a JSON object, sent with Content-Type: application/json", None, "invalid_body"
        )
    body_type = _annotation(getattr(route, "body_field", None))
    by_field: dict[str, list[str]] = {}
    for entry in errors[:_SHOWN_ERRORS]:
        param = _dotted(entry["loc"], error.body)
        by_field.setdefault(param, []).append(_sentence(entry, body_type))
    sentences = [f"{param or 'body'}: {_joined(said)}" for param, said in by_field.items()]
    if len(errors) > _SHOWN_ERRORS:
        sentences.append(f"and {len(errors) - _SHOWN_ERRORS} more")
    return Explained("; ".join(sentences), next(iter(by_field)) or None, _code(errors[0]["type"]))


def _sentence(entry: Mapping[str, Any], body_type: Any) -> str:
    kind, where = entry["type"], [str(step) for step in entry["loc"]]
    if kind == "missing":
        return "this is required"
    if kind == "extra_forbidden":
        return _unknown_field(where, body_type)
    message = str(entry["msg"]).removeprefix("Value error, ").replace("Input should", "must")
    return message if kind == "value_error" else f"{message}{_GOT}{_shown(entry.get('input'))})"


def _joined(sentences: Sequence[str]) -> str:
    """What each branch of a union wants, and once what was given."""
    wanted = [sentence.partition(_GOT)[0] for sentence in sentences]
    _, got, given = sentences[-1].partition(_GOT)
    return " or ".join(dict.fromkeys(wanted)) + got + given


def _unknown_field(where: Sequence[str], body_type: Any) -> str:
    known = _fields_at(body_type, where[1:-1])
    near = get_close_matches(where[-1], known, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else f"known here: {', '.join(known)}"
    return f"there is no such field; {hint}" if known else "there is no such field"


def _fields_at(annotation: Any, path: Sequence[str]) -> list[str]:
    """The names of the fields of the model that `path` leads to."""
    model = _model_in(annotation)
    if model is None:
        return []
    if not path:
        return list(model.model_fields)
    field = model.model_fields.get(path[0])
    return _fields_at(field.annotation, path[1:]) if field else []


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    found = (_model_in(part) for part in get_args(annotation))
    return next((model for model in found if model is not None), None)


def _annotation(body_field: Any) -> Any:
    return body_field.field_info.annotation if body_field is not None else None


def _dotted(loc: Sequence[Any], body: Any) -> str:
    """The path as the person wrote it: pydantic's steps, less the names of a union's branches."""
    source, *steps = loc
    if source != "body":
        return ".".join(map(str, steps)) or str(source)
    path, here = "", body
    for place, step in enumerate(steps):
        is_last = place == len(steps) - 1
        if isinstance(step, int) and isinstance(here, list):
            path += f"[{step}]"
            here = here[step] if step < len(here) else None
        elif isinstance(step, str) and isinstance(here, dict) and (step in here or is_last):
            path += f".{step}" if path else step
            here = here.get(step)
    return path


def _code(kind: str) -> str:
    return {"missing": "missing_field", "extra_forbidden": "unknown_field"}.get(kind, "invalid_value")


def _shown(value: Any) -> str:
    text = _shortened.repr(value)
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}..."
