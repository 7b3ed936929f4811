"""Checks of the form of other servers' addresses, without a connection: a wrong address is an error of its setting at the start.

No error here repeats an address, since it may contain a password.
"""

from __future__ import annotations

import ipaddress
import json
import os
import re
from contextlib import suppress
from typing import Any
from urllib.parse import SplitResult, urlsplit

from inference.settings.http_address import is_host_name, is_ipv6

_ENCODE = "in a password, characters as / ? # [ ] @ : % are percent-encoded (@ as %40)"
_AMQP_FORM = "amqp://USER:PASSWORD@HOST:PORT/VHOST"
_MONGODB_FORM = "mongodb://USER:PASSWORD@HOST:PORT/?OPTION=VALUE"
_UNENCODED_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")
_CREDENTIAL = re.compile(r"\w*(username|password)=", re.IGNORECASE)
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
#: Options of an AMQP URL that kombu and py-amqp take, and the form of each.
_AMQP_OPTIONS = {
    "heartbeat": (re.compile(r"\d{1,5}(\.\d{1,3})?"), "a number of seconds"),
    "login_method": (re.compile("PLAIN|AMQPLAIN|EXTERNAL"), "PLAIN, AMQPLAIN or EXTERNAL"),
}


def check_text(value: Any) -> Any:
    """Refuse control characters and blanks at the ends of a text, and of each text of a list; other values pass.

    Raises:
        ValueError: describes the problem; the usual cause is a secret that was read from a file with its line end.
    """
    for text in value if isinstance(value, list | tuple) else (value,):
        if not isinstance(text, str):
            continue
        if text.endswith(("\n", "\r")):
            raise ValueError("ends in a line end; remove it")
        if control := _CONTROL.search(text):
            raise ValueError(f"contains the control character {control.group()!r}")
        try:
            os.fsencode(text)
        except UnicodeEncodeError:
            raise ValueError("contains half of a surrogate pair, which is not a character") from None
        if text != text.strip():
            raise ValueError("begins or ends with a blank; remove it")
    return value


def check_access_key(key: str) -> str:
    """Raise ValueError unless `key` can be part of an HTTP header as S3 signs it."""
    if not key.isascii() or any(character.isspace() or character == "," for character in key):
        raise ValueError("must be ASCII without blanks and commas")
    return key


def s3_endpoint(endpoint: str) -> str:
    """Return `HOST:PORT`, with the `http://` or `https://` of `endpoint`, if any. Raises ValueError."""
    scheme, separator, address = endpoint.rpartition("://")
    if separator and scheme.lower() not in {"http", "https"}:
        raise ValueError("must be HOST:PORT, http://HOST:PORT or https://HOST:PORT")
    address = address.removesuffix("/")
    if "@" in address:
        raise ValueError("must be HOST:PORT; credentials belong in s3.access_key and s3.secret_key")
    if not is_host_and_port(address):
        path = ", without a path: that of the API, not of the console" if re.search("[/?#]", address) else ""
        raise ValueError(f"must be HOST:PORT, http://HOST:PORT or https://HOST:PORT{path}")
    return f"{scheme.lower()}{separator}{address}"


def http_url(url: str) -> str:
    """Return an `http://HOST:PORT` or `https://HOST:PORT`, which may have a path, without a / at its end. Raises ValueError."""
    parts = split_url(url, "https://HOST:PORT")
    if parts.scheme not in {"http", "https"} or parts.query or not is_host_and_port(parts.netloc):
        raise ValueError("must be http://HOST:PORT or https://HOST:PORT")
    return url.removesuffix("/")


def bucket_name(name: str) -> str:
    """Raise ValueError if S3 does not allow `name`; its characters and length are checked elsewhere."""
    if any(pair in name for pair in ("..", ".-", "-.")):
        raise ValueError("a bucket's name must not contain '..', '.-' or '-.'")
    if is_ip_address(name):
        raise ValueError("a bucket's name must not be an IP address")
    return name


def bootstrap_servers(servers: Any) -> Any:
    """Return `HOST:PORT,…` from a text or list of Kafka servers, in the environment also a list in JSON. Raises ValueError."""
    parts = _listed(servers) if isinstance(servers, str) else servers
    if not isinstance(parts, list | tuple) or not all(isinstance(part, str) for part in parts):
        return parts  # pydantic reports the wrong type
    parts = [part.strip() for part in parts]
    while len(parts) > 1 and not parts[-1]:  # after the last comma
        parts.pop()
    if any("://" in part for part in parts):
        raise ValueError("must be HOST:PORT[,HOST:PORT…], without a scheme")
    if not parts or not all(map(is_host_and_port, parts)):
        raise ValueError("must be HOST:PORT[,HOST:PORT…]")
    return ",".join(parts)


def _listed(servers: str) -> Any:
    with suppress(ValueError):
        if isinstance(parts := json.loads(servers), list):
            return parts
    return servers.split(",")


def kafka_topic(name: str) -> str:
    """Raise ValueError for the names '.' and '..', which Kafka refuses."""
    if name in {".", ".."}:
        raise ValueError("a topic must not be named '.' or '..'")
    return name


def amqp_url(url: str) -> str:
    """Check RabbitMQ's URL, or several with ';' between them (if one is down, the next is used). Raises ValueError."""
    for part in url.split(";"):
        parts = split_url(part, _AMQP_FORM)
        if parts.scheme not in {"amqp", "amqps"}:
            raise ValueError(f"must be {_AMQP_FORM}; several have ';' between them")
        if not is_host_and_port(parts.netloc.rpartition("@")[2]):
            raise ValueError(f"must be {_AMQP_FORM}; {_ENCODE}")
        for option in filter(None, parts.query.split("&")):
            _check_amqp_option(*option.partition("=")[::2])
    return url


def _check_amqp_option(name: str, value: str) -> None:
    """Raise ValueError for an unknown or malformed option, without the text: it may be the rest of a password."""
    if name not in _AMQP_OPTIONS:
        raise ValueError(f"has an option that is none of {', '.join(_AMQP_OPTIONS)}")
    form, kind = _AMQP_OPTIONS[name]
    if not form.fullmatch(value):
        raise ValueError(f"{name} must be {kind}")


def mongodb_url(url: str) -> str:
    """Raise ValueError unless `url` has the form of a MongoDB URL; the client checks its options when it is created."""
    parts = split_url(url, _MONGODB_FORM)
    if parts.scheme not in {"mongodb", "mongodb+srv"}:
        raise ValueError(f"must be {_MONGODB_FORM}, or mongodb+srv://…")
    credentials, _, hosts = parts.netloc.rpartition("@")
    user, _, password = credentials.partition(":")
    if any(re.search("[@:/]", text) or _UNENCODED_PERCENT.search(text) for text in (user, password)):
        raise ValueError(f"must be {_MONGODB_FORM}; {_ENCODE}")
    if parts.scheme == "mongodb+srv" and not is_host_name(hosts):
        raise ValueError("mongodb+srv:// has one host, without a port")
    if not all(is_host_and_port(host) or host.endswith(".sock") for host in hosts.split(",")):
        raise ValueError(f"must be {_MONGODB_FORM}; {_ENCODE}")
    return url


def mongodb_database(name: str) -> str:
    """Raise ValueError unless MongoDB allows a database of this name."""
    if not 0 < len(name.encode()) < 64 or re.search(r'[/\\. "$\0]', name):  # noqa: PLR2004 the server's limit
        raise ValueError("a database's name has 1 to 63 bytes, and none of / \\ . \" $ and blank")
    return name


def mongodb_collection(name: str) -> str:
    """Raise ValueError unless MongoDB allows a collection of this name."""
    if not name or "$" in name or ".." in name or name.startswith((".", "system.")) or name.endswith("."):
        raise ValueError(
            "a collection's name is not empty, has no $ and no empty part between dots, and does not begin with system."
        )
    return name


def split_url(url: str, form: str) -> SplitResult:
    """Return the URL's parts. Raises ValueError if the rest of a password that is not percent-encoded became another part."""
    try:
        parts = urlsplit(url)
    except ValueError:
        raise ValueError(f"must be {form}; {_ENCODE}") from None
    # An option with a user name or password may contain an @.
    options = [option for option in parts.query.split("&") if not _CREDENTIAL.match(option)]
    if "@" in parts.path or "@" in parts.fragment or any("@" in option for option in options):
        raise ValueError("the password must be percent-encoded: / as %2F, ? as %3F, # as %23, @ as %40, % as %25")
    if parts.fragment or url.endswith("#"):
        raise ValueError(f"has a '#', which is %23 in a password; must be {form}")
    return parts


def is_host_and_port(text: str) -> bool:
    """Whether `text` is HOST or HOST:PORT."""
    host, colon, port = text.rpartition(":") if re.search(r":[^\]]*$", text) else (text, "", "")
    has_port = port.isascii() and port.isdecimal() and 0 < int(port[:6]) < 2**16
    is_host = is_ipv6(host[1:-1]) if host.startswith("[") and host.endswith("]") else host.isascii() and is_host_name(host)
    return is_host and (has_port or not colon)


def is_ip_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
