"""Ends of the certificates that the settings name."""

from __future__ import annotations

import re
import ssl
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from pydantic import BaseModel

from inference.settings import Settings
from inference.settings.redis_address import RedisAddress

_FIELDS = ("ca_file", "cert_file")
#: Options of a Redis URL with such files.
_URL_OPTIONS = ("ssl_ca_certs", "ssl_certfile")
_PEM = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)
#: Tags of DER: X.690, 8.
_UTC_TIME, _VERSION = 0x17, 0xA0


def certificate_ends(settings: Settings) -> dict[str, float]:
    """Return by setting the Unix time at which the first certificate of its file ends; without files that cannot be read."""
    ends = ((setting, _first_end(file)) for setting, file in _files(settings))
    return {setting: end for setting, end in ends if end is not None}


def _files(settings: Settings) -> Iterator[tuple[str, Path]]:
    for name in type(settings).model_fields:
        section = getattr(settings, name)
        for field in _FIELDS if isinstance(section, BaseModel) else ():
            if (file := getattr(section, field, None)) is not None:
                yield f"{name}.{field}", file
    urls = {"task_store.url": settings.task_store.url, "broker.url": None if settings.broker.is_amqp else settings.broker.url}
    for name, url in urls.items():
        tls = RedisAddress.parse(url).tls if url and "://" in url else None
        yield from ((f"{name}?{option}", Path(str(tls[option]))) for option in _URL_OPTIONS if tls and option in tls)


def _first_end(file: Path) -> float | None:
    try:
        found = _PEM.findall(file.read_text(encoding="latin-1"))
        return min((_end(ssl.PEM_cert_to_DER_cert(text)) for text in found), default=None)
    except (OSError, ValueError, IndexError):  # the part that connects with it reports that
        return None


def _end(certificate: bytes) -> float:
    """Return the time `notAfter` of a certificate in DER: RFC 5280, 4.1. Raises ValueError, IndexError."""
    ((_, content),) = _elements(certificate)
    (_, content), *_ = _elements(content)
    to_be_signed = list(_elements(content))
    if to_be_signed[0][0] == _VERSION:
        del to_be_signed[0]
    _serial, _algorithm, _issuer, (_, validity), *_ = to_be_signed
    _, (tag, text) = _elements(validity)
    pattern = "%y%m%d%H%M%SZ" if tag == _UTC_TIME else "%Y%m%d%H%M%SZ"
    return datetime.strptime(text.decode("ascii"), pattern).replace(tzinfo=UTC).timestamp()


def _elements(der: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield tag and content of each element of a sequence in DER."""
    at = 0
    while at < len(der):
        tag, length, at = der[at], der[at + 1], at + 2
        if length & 0x80:  # the number of bytes that have the length
            size = length & 0x7F
            length, at = int.from_bytes(der[at : at + size]), at + size
        yield tag, der[at : at + length]
        at += length
