"""From an address to a store."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol
from urllib.parse import SplitResult, unquote, urlsplit

from pydantic import SecretStr

from shared.artifacts.keys import checked_key
from shared.artifacts.local import LocalArtifacts
from shared.artifacts.s3 import S3Artifacts
from shared.artifacts.store import ArtifactStore
from shared.domain.errors import Invalid

if TYPE_CHECKING:
    from obstore.store import S3Config  # a type only: obstore does not have it at run time


class _S3Settings(Protocol):
    s3_endpoint: str | None
    s3_public_endpoint: str | None
    s3_region: str | None
    s3_access_key_id: SecretStr | None
    s3_secret_access_key: SecretStr | None


@dataclass(frozen=True)
class StoreOptions:
    """How to reach S3. What is None comes from the usual AWS environment.

    `endpoint` is where a store that is not AWS listens, maybe inside the cluster only; so addresses are
    signed only where `public_endpoint` says how clients reach the same store.
    """

    endpoint: str | None = None
    public_endpoint: str | None = None
    region: str | None = None
    access_key_id: str | None = None
    secret_access_key: SecretStr | None = None

    @classmethod
    def from_settings(cls, settings: _S3Settings) -> StoreOptions:
        """The `s3_` fields of the process's settings."""
        key_id = settings.s3_access_key_id
        return cls(
            endpoint=settings.s3_endpoint,
            public_endpoint=settings.s3_public_endpoint,
            region=settings.s3_region,
            access_key_id=None if key_id is None else key_id.get_secret_value(),
            secret_access_key=settings.s3_secret_access_key,
        )


def open_store(url: str, options: StoreOptions | None = None) -> ArtifactStore:
    """The store at `file:///folder` (made if missing, for this user alone) or `s3://bucket/prefix`.

    Nothing is sent: `check()` says whether the store can be written. A bad address raises `Invalid`.
    """
    parts = urlsplit(url)
    if parts.query or parts.fragment or parts.username is not None:
        raise Invalid(
            f"store address {_shown(parts)}: only file:///folder or s3://bucket/prefix, nothing more"
        )
    if parts.scheme == "file":
        return _open_local(parts)
    if parts.scheme == "s3":
        return _open_s3(parts, options or StoreOptions())
    raise Invalid(f"store address {_shown(parts)}: must be file:///folder or s3://bucket/prefix")


def _open_local(parts: SplitResult) -> ArtifactStore:
    root = Path(unquote(parts.path))
    if parts.netloc or not root.is_absolute() or root == Path("/"):
        raise Invalid(
            f"store address {_shown(parts)}: must be file:///folder, with three slashes and a folder"
        )
    return LocalArtifacts(root)


def _open_s3(parts: SplitResult, options: StoreOptions) -> ArtifactStore:
    prefix = parts.path.strip("/")
    if not parts.netloc:
        raise Invalid(f"store address {_shown(parts)}: must name a bucket, as s3://bucket/prefix")
    if (options.access_key_id is None) != (options.secret_access_key is None):
        raise Invalid("S3 credentials: give both the access key's id and its secret, or neither")
    config = _s3_config(options, options.endpoint)
    public = options.public_endpoint
    signing = _s3_config(options, public) if public or not options.endpoint else None
    return S3Artifacts(parts.netloc, checked_key(prefix) if prefix else None, config, signing)


def _s3_config(options: StoreOptions, endpoint: str | None) -> S3Config:
    config: S3Config = {"copy_if_not_exists": "multipart"}
    if endpoint is not None:
        config["endpoint"] = endpoint
        config["region"] = options.region or "us-east-1"
    elif options.region is not None:
        config["region"] = options.region
    if options.access_key_id is not None and options.secret_access_key is not None:
        config["access_key_id"] = options.access_key_id
        config["secret_access_key"] = options.secret_access_key.get_secret_value()
    return config


def _shown(parts: SplitResult) -> str:
    """The address without what may be a secret in it."""
    return repr(f"{parts.scheme}://{parts.hostname or ''}{parts.path}")
