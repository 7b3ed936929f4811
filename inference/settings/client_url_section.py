"""Base of the sections of URLs that clients name: the destinations that are allowed, and limits of time."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

from inference.settings import web_origins
from inference.settings.value_checks import Seconds, Section


class ClientUrlSection(Section):
    """Destinations of the URLs that clients name, and limits of time for the requests to them."""

    #: also URLs without TLS
    allow_http: bool = False
    #: ports that a URL may have; none: 443, and 80 if `allow_http`
    ports: tuple[Annotated[int, Field(ge=1, le=65535)], ...] = ()
    #: hosts that a URL may have, `*.NAME` for all names below NAME; none: any
    hosts: tuple[Annotated[str, AfterValidator(web_origins.url_host)], ...] = ()
    #: networks that may be reached though they are not public, such as 10.1.0.0/16
    private_networks: tuple[Annotated[str, AfterValidator(web_origins.network)], ...] = ()
    #: for the connection, seconds
    connect_timeout_s: Seconds = 5
    #: for a whole image, or a whole request to a receiver, seconds
    timeout_s: Seconds = 15
