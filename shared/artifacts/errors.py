"""What an artifact store can refuse, whichever adapter is behind it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from obstore.exceptions import AlreadyExistsError, BaseError

from shared.domain.errors import Conflict, Invalid, NotFound, ThawError, Unavailable


class ArtifactNotFound(NotFound):
    """No object is stored under this key."""

    default_code = "artifact_not_found"


class ArtifactExists(Conflict):
    """The object was to be created, and there is one under this key already."""

    default_code = "artifact_exists"


class ArtifactCorrupt(ThawError):
    """The bytes that came out of the store are not the bytes that went in."""

    default_code = "artifact_corrupt"


class BadKey(Invalid):
    """The key is not a relative path of plain names."""

    default_code = "bad_artifact_key"


class StoreUnavailable(Unavailable):
    """The store cannot be reached, refuses the credentials, or failed."""

    default_code = "artifact_store_unavailable"


@contextmanager
def store_errors(action: str, key: str, *, writing: bool = False) -> Iterator[None]:
    """Turn what obstore and the file system raise into the errors above. `action` reads after "cannot".

    While writing, what cannot be found is the place, not the object.
    """
    try:
        yield
    except FileNotFoundError as error:
        if writing:
            raise StoreUnavailable(
                f"cannot {action} {key!r}: the store's bucket or folder is not there"
            ) from error
        raise ArtifactNotFound(f"cannot {action} {key!r}: the store holds no such object") from error
    except (AlreadyExistsError, FileExistsError) as error:
        raise ArtifactExists(
            f"cannot {action} {key!r}: the store already holds an object of that name"
        ) from error
    except (BaseError, OSError) as error:
        raise StoreUnavailable(f"cannot {action} {key!r}: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
