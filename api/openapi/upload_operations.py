"""Operations and answers of uploads."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from typing_extensions import TypedDict

from api.openapi.operation import OF_BODIES, OF_PATHS, Answer, Content, Operation
from api.openapi.parts import path_text, query
from api.security.needed_role import NeededRole
from inference.errors import ObjectNotFound, StorageFull
from inference.storage.client_uploads import UPLOAD_ID_PATTERN

OCTETS = "application/octet-stream"


class UploadedImage(TypedDict):
    """Value of `image` in the requests that name the upload."""

    url: Annotated[str, Field(description="s3://BUCKET/KEY")]


class NewUpload(TypedDict):
    """Upload to which an image may be put now."""

    method: Literal["PUT"]
    url: Annotated[str, Field(description="the URL to put the bytes of the image to: of the object store, or of this service")]
    headers: Annotated[dict[str, str], Field(description="headers to send with them")]
    image: UploadedImage
    expires_at: Annotated[str, Field(description="until then the image can be put, and named in requests")]
    max_bytes: int


class StoredUpload(TypedDict):
    """Upload whose bytes have come."""

    bytes: Annotated[int, Field(description="how many")]


UPLOAD_SCHEMAS = (NewUpload, StoredUpload)

UPLOAD_OPERATIONS = (
    Operation(
        "create_upload",
        "post",
        "/uploads",
        "predictions",
        "Get a URL to put an image to",
        role=NeededRole.PREDICT,
        description="For images that are larger than a body may be, and for images that several requests name.",
        answers=(Answer(201, "The upload.", (NewUpload,)),),
        own_problems=(StorageFull,),
    ),
    Operation(
        "put_upload",
        "put",
        "/uploads/{upload_id}",
        "predictions",
        "Put an image to the URL of an upload",
        role=NeededRole.NONE,
        description="The URL of `create_upload`, if the service keeps images in a folder; else that is one of the object store.",
        parameters=(
            path_text("upload_id", pattern=f"^{UPLOAD_ID_PATTERN}$"),
            query("signature", "as in the URL", required=True, type="string"),
        ),
        body={OCTETS: Content(())},
        answers=(Answer(200, "The bytes are stored.", (StoredUpload,)),),
        own_problems=(*OF_PATHS, *OF_BODIES, ObjectNotFound, StorageFull),
    ),
)
