"""/v1/files"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request, Response
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import FormData, UploadFile

from api.deps import CallerDep, PartsDep, ScopeDep, WriterDep
from api.download import download
from api.errors import documented
from api.query import After
from api.schemas import Deleted, FileObject, ListOf
from api.services.uploads import PURPOSE, discard_file, store_upload
from api.views import file_view, page_of
from shared.db.files import list_files
from shared.db.models import File
from shared.domain.errors import Invalid

router = APIRouter(prefix="/v1/files", tags=["files"])

_FIELDS = {"file", "purpose"}
_FORM: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file", "purpose"],
                    "additionalProperties": False,
                    "properties": {
                        "file": {"type": "string", "format": "binary"},
                        "purpose": {"type": "string", "enum": [PURPOSE]},
                    },
                }
            }
        },
    }
}


@router.post("", responses=documented(422, 403, 413), openapi_extra=_FORM)
async def upload(request: Request, caller: WriterDep, parts: PartsDep) -> FileObject:
    """Upload a data set or weights: a form with `file` and `purpose`.

    A zip of class folders (cat/1.png, dog/1.png), of pictures and a labels.csv, or of images/, masks/ and
    classes.txt, or all of that inside one folder; a Parquet file with an image and a label column; or a
    safetensors file. It is checked before it counts.
    """
    # The form is read here, not by the framework, so that only a known caller can send gigabytes.
    form = await _form(request)
    try:
        file, purpose = _fields(form)
        # Gigabytes take minutes: without turns of their own, uploads would take the threads of all routes.
        async with parts.uploads:
            row = await run_in_threadpool(
                store_upload,
                parts.engine,
                parts.store,
                parts.settings,
                caller.team_id,
                file=file.file,
                filename=file.filename or "",
                purpose=purpose,
            )
    finally:
        await form.close()
    return file_view(row)


@router.get("", responses=documented(422, 404))
def list_all(
    scope: ScopeDep,
    after: After = None,
    limit: Annotated[int, Query(ge=1, le=10_000)] = 1000,
    order: Literal["asc", "desc"] = "desc",
    purpose: Annotated[str | None, Query(max_length=64)] = None,
) -> ListOf[FileObject]:
    """The team's files, the newest first."""
    return page_of(list_files(scope, after=after, limit=limit, order=order, purpose=purpose), file_view)


@router.get("/{file_id}", responses=documented(404))
def get_one(file_id: str, scope: ScopeDep) -> FileObject:
    """One file, with what was found inside."""
    return file_view(scope.get(File, file_id))


@router.delete("/{file_id}", responses=documented(403, 404, 409))
def delete(file_id: str, caller: WriterDep, parts: PartsDep) -> Deleted:
    """Delete a file that no unfinished job uses."""
    discard_file(parts.engine, parts.store, caller.team_id, file_id)
    return Deleted(id=file_id, object="file")


@router.get("/{file_id}/content", responses=documented(404, 416), response_class=Response)
def content(file_id: str, request: Request, caller: CallerDep, scope: ScopeDep, parts: PartsDep) -> Response:
    """The file's bytes, or a redirect to a signed address."""
    file = scope.get(File, file_id)
    return download(parts.store, file.storage_key, file.bytes, file.filename, request.headers.get("range"))


async def _form(request: Request) -> FormData:
    if not request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
        raise Invalid(
            "send a form of Content-Type multipart/form-data: 'file', with a file name, and 'purpose'",
            param="file",
        )
    try:
        return await request.form(max_files=1, max_fields=4)
    except UnicodeError as error:
        raise Invalid(
            f"the form's texts cannot be read in the charset that its Content-Type names ({error}); "
            "leave that out, they are UTF-8",
            param="Content-Type",
        ) from error


def _fields(form: FormData) -> tuple[UploadFile, str]:
    unknown = sorted(set(form) - _FIELDS)
    if unknown:
        raise Invalid(
            f"{unknown[0]!r} is no field of this form; it has 'file' and 'purpose'",
            param=unknown[0],
            code="unknown_field",
        )
    for name in form:
        if len(given := form.getlist(name)) > 1:
            raise Invalid(
                f"{name!r} is given {len(given)} times, and only one of them would count; give it once",
                param=name,
                code="repeated_field",
            )
    file, purpose = form.get("file"), form.get("purpose")
    if not isinstance(file, UploadFile):
        raise Invalid("send the file as the form's field 'file', with a file name", param="file")
    if not isinstance(purpose, str):
        raise Invalid(f"send the form's field 'purpose'; it is {PURPOSE!r}", param="purpose")
    return file, purpose
