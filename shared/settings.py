"""Every setting of the server's processes, from the environment: `THAW_` and the field's name in capitals."""

from __future__ import annotations

import os
import socket
from functools import lru_cache
from pathlib import Path

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from shared.setting_names import PREFIX, unknown_names

MIB = 1024 * 1024


class Settings(BaseSettings):
    """All settings. What a `THAW_` variable that names none of them comes to: `setting_names.py`."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, extra="forbid")

    # What every process needs.
    database_url: SecretStr = Field(
        description="Postgres, as postgresql+psycopg://user:password@host/database"
    )
    redis_url: SecretStr = Field(
        description="Redis, as redis://host:6379/0 or redis+socket:///path/redis.sock"
    )
    store_url: str = Field(description="Artifact store: file:///folder or s3://bucket/prefix")
    s3_endpoint: str | None = Field(None, description="S3 address, where it is not AWS")
    s3_public_endpoint: str | None = Field(
        None, description="the same, as clients reach it; else the API streams"
    )
    s3_region: str | None = None
    s3_access_key_id: SecretStr | None = None
    s3_secret_access_key: SecretStr | None = None
    log_level: str = "INFO"

    # The API.
    max_upload_bytes: int = Field(20 * 1024 * MIB, description="largest file that /v1/files takes")
    max_unpacked_bytes: int = Field(100 * 1024 * MIB, description="largest sum of an archive's members")
    max_archive_files: int = Field(2_000_000, description="most members an archive may have")
    max_compression_ratio: float = Field(
        200.0, description="unpacked over packed bytes, per archive and member"
    )
    max_body_bytes: int = Field(1 * MIB, description="largest JSON body")
    max_extraction_bytes: int = Field(100 * 1024 * MIB, description="largest sum of one job's activations")
    max_attempts: int = Field(3, description="tries of a job whose worker is lost")

    # Leases; DESIGN's numbers. `time_scale` shortens all of them in proportion, for tests.
    time_scale: float = Field(1.0, gt=0, le=1)
    lease_s: float = 60.0
    renew_s: float = 10.0
    hold_after_s: float = Field(40.0, description="a heartbeat older than this stops the ranks")
    kill_after_held_s: float = 300.0
    stall_s: float = Field(1800.0, description="ranks that get no further for this long are ended")
    unreachable_s: float = Field(
        40.0, gt=0, description="a gang ends when one of its nodes had no answer from another for this long"
    )
    offer_s: float = Field(15.0, description="an unanswered offer is made anew after this")
    gang_s: float = Field(30.0, description="an incomplete gang is aborted after this")
    reconcile_s: float = 10.0
    node_heartbeat_s: float = 5.0
    gpu_health_s: float = Field(
        15.0, gt=0, description="pause between two looks at the health of a node's GPUs"
    )
    schedule_s: float = Field(0.5, description="pause between two scheduling passes")

    # What is remembered and kept, and for how long. `time_scale` does not touch these.
    usage_half_life_s: float = Field(
        7 * 24 * 3600.0, gt=0, description="what a team held so long ago counts half in its fair share"
    )
    idempotency_keep_s: float = Field(
        24 * 3600.0, gt=0, description="an Idempotency-Key is remembered at least this long"
    )
    audit_keep_s: float = Field(
        400 * 24 * 3600.0, gt=0, description="an entry of the audit log is kept so long, then removed"
    )
    sweep_s: float = Field(600.0, gt=0, description="pause between two rounds of the sweep of the store")
    sweep_grace_s: float = Field(
        3600.0, ge=0, description="nothing goes that is younger, or whose attempt, job or file was there then"
    )
    sweep_objects: int = Field(10_000, ge=1, description="stored objects that one round looks at")

    # A worker, which is one node.
    node_name: str = Field(default_factory=socket.gethostname)
    slots: int | None = Field(None, ge=1, le=1024, description="CPU slots; left out: the GPUs found, else 1")
    work_dir: Path = Field(Path("/var/lib/thaw"), description="cache and scratch of this node")
    advertise_host: str = Field("127.0.0.1", description="address at which other nodes reach this one")
    port_base: int = Field(29500, description="rendezvous port of slot 0; slot n has port_base + n")
    weights_dir: Path | None = Field(None, description="published weights already on disk, by file name")
    trainer_env: dict[str, str] = Field(
        default_factory=dict, description="extra environment of trainers, as JSON"
    )
    trainer_uid: int | None = Field(None, description="uid of the trainers, where the worker may change it")
    cache_bytes: int = Field(
        50 * 1024 * MIB, description="inputs kept on the node, least recently used go first"
    )

    def scaled(self, seconds: float) -> float:
        """Seconds on this deployment's clock."""
        return seconds * self.time_scale

    @property
    def heard_within_s(self) -> float:
        """A node that was not heard for longer is given no work."""
        return self.scaled(self.node_heartbeat_s) * 3


@lru_cache
def get_settings() -> Settings:
    """The settings of this process, read once. A `THAW_` variable that names none ends it, in words."""
    if complaint := unknown_names(os.environ, Settings.model_fields):
        raise SystemExit(complaint)
    return Settings()
