"""Sections of the places where images are stored, and from which they are fetched."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from inference.settings import addresses
from inference.settings.client_url_section import ClientUrlSection
from inference.settings.value_checks import RetentionHours, Section, or_none

BucketName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$"), AfterValidator(addresses.bucket_name)]


class UploadSettings(Section):
    """Storage of the images."""

    store: Literal["local", "s3"] = "local"
    #: folder of the local store; default: `uploads` in `data_dir`
    path: Path | None = None
    #: bucket of the S3 store, created if it is missing; also the name of the local store in `s3://` addresses
    bucket: BucketName = "inference"
    #: images up to this size are inline: also in the task store until their task ends, so that no worker fetches them; 0: none
    inline_max_bytes: int = Field(default=2**18, ge=0, le=2**20)
    #: memory for inline images of all models in the task store, MiB; while it is full, images go to the object store first
    inline_memory_mb: int = Field(default=128, ge=0, le=2**20)
    #: uploads are removed after this number of hours, at least `deadlines.max_s`; none: never
    retention_hours: Annotated[RetentionHours | None, BeforeValidator(or_none)] = 720
    #: an upload without a task is removed after this time, seconds, 180 at least; less than `task_store.result_ttl_s`. A request
    #: is refused if it has no task after half of the time
    orphan_after_s: float = Field(default=900, ge=180, le=1e9, allow_inf_nan=False)
    #: limit for an image that a client puts into the store itself (`POST /uploads`), bytes
    max_bytes: int = Field(default=128 * 2**20, ge=1, le=5 * 2**30)
    #: such an image is put, and named in requests, within this time, seconds; it is removed then
    url_lifetime_s: float = Field(default=3600, ge=60, le=604_800, allow_inf_nan=False)
    #: new requests are refused while the disk of the local store, or of `data_dir`, has less free space than this, MiB
    min_free_disk_mb: int = Field(default=512, ge=0, le=2**40)


class ImageUrlSettings(ClientUrlSection):
    """Images that requests name by https:// URLs: the API fetches them."""

    enabled: bool = False
