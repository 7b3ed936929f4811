"""Section of the S3 store: MinIO or any other."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, SecretStr, model_validator

from inference.settings import addresses
from inference.settings.value_checks import Seconds, Section, secret_validator

Endpoint = Annotated[str, AfterValidator(addresses.s3_endpoint)]


class S3Settings(Section):
    """Connection to an S3 store."""

    #: HOST:PORT; a prefix http:// or https:// sets `secure`
    endpoint: Endpoint = "127.0.0.1:9000"
    #: the endpoint as clients reach it, for the URLs of `POST /uploads`; default: `endpoint`
    public_endpoint: Endpoint | None = None
    #: `keys`: those below, none: anonymous; `role`: temporary ones of the role that the environment gives this process: a web
    #: identity (`AWS_WEB_IDENTITY_TOKEN_FILE`), a container (`AWS_CONTAINER_CREDENTIALS_…_URI`), else an EC2 instance
    credentials: Literal["keys", "role"] = "keys"
    access_key: Annotated[SecretStr, secret_validator(addresses.check_access_key)] = SecretStr("")
    secret_key: SecretStr = SecretStr("")
    #: of temporary keys; they are not renewed
    session_token: Annotated[SecretStr, secret_validator(addresses.check_access_key)] = SecretStr("")
    #: URL that gives the role's keys; default: AWS', as the environment names it
    role_endpoint: Annotated[str, AfterValidator(addresses.http_url)] | None = None
    secure: bool = False
    #: authorities that sign the certificates of the server and of `role_endpoint`, in PEM; default: those of the system
    ca_file: Path | None = None
    #: default: that in the name of AWS' endpoint, else us-east-1
    region: str | None = Field(default=None, pattern=r"^([A-Za-z0-9][A-Za-z0-9_-]{0,62})?$")
    #: whether URLs name the bucket in the path or in the host (`virtual`); `auto`: in the host for AWS, in the path for others
    addressing: Literal["auto", "path", "virtual"] = "auto"
    connect_timeout_s: Seconds = 3
    read_timeout_s: Seconds = 15

    @property
    def has_tls(self) -> bool:
        scheme, separator, _ = self.endpoint.partition("://")
        return scheme == "https" if separator else self.secure

    @model_validator(mode="after")
    def _authorities_need_tls(self) -> Self:
        if self.ca_file is not None and not self.has_tls:
            raise ValueError("ca_file needs an https:// endpoint, or secure: true")
        return self

    @model_validator(mode="after")
    def _keys_have_one_source(self) -> Self:
        given = [name for name in ("access_key", "secret_key", "session_token") if getattr(self, name).get_secret_value()]
        if self.credentials == "role" and given:
            raise ValueError(f"credentials: role excludes {' and '.join(given)}")
        if self.credentials == "keys" and self.role_endpoint is not None:
            raise ValueError("role_endpoint needs credentials: role")
        return self

    @model_validator(mode="after")
    def _buckets_can_be_in_the_host(self) -> Self:
        for endpoint in filter(None, (self.endpoint, self.public_endpoint)):
            host = re.sub(r":\d+$", "", endpoint.rpartition("://")[2]).strip("[]")
            if self.addressing == "virtual" and addresses.is_ip_address(host):
                raise ValueError(f"addressing: virtual needs an endpoint with a name, since BUCKET.{host} is no host")
        return self
