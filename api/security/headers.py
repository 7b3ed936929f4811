"""Headers of every answer, including answers that no route creates."""

from __future__ import annotations

Headers = list[tuple[str, str]]

CONTENT_POLICY = "Content-Security-Policy"
CACHE_CONTROL = "Cache-Control"
SECURITY_HEADERS: Headers = [
    ("X-Content-Type-Options", "nosniff"),
    (CACHE_CONTROL, "no-store"),
    (CONTENT_POLICY, "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"),
    ("Referrer-Policy", "no-referrer"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
]
#: Valid for a year. Sent only over HTTPS, as reported by a trusted proxy.
HSTS = ("Strict-Transport-Security", "max-age=31536000")
REQUEST_ID = "X-Request-ID"
#: Header of a request with a key, in place of Authorization.
KEY_HEADER = "X-API-Key"


def header_lines(headers: Headers) -> str:
    """The headers as HTTP/1.1 writes them."""
    return "".join(f"{name}: {value}\r\n" for name, value in headers)
