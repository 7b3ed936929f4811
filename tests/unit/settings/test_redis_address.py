"""Redis URLs that are valid, and messages about wrong ones."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from inference.settings.redis_address import REDIS_SCHEMES, RedisAddress


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    file = tmp_path / "ca.crt"
    file.touch()
    return file


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("redis://host", RedisAddress((("host", 6379),))),
        ("redis://host:7000/3", RedisAddress((("host", 7000),), db=3)),
        ("redis://host/2?db=3", RedisAddress((("host", 6379),), db=3)),
        ("redis://[::1]:7000/", RedisAddress((("::1", 7000),))),
        ("redis://:s%40%2F%3A@host", RedisAddress((("host", 6379),), password="s@/:")),
        ("redis://me:p@ss@host", RedisAddress((("host", 6379),), username="me", password="p@ss")),
        ("redis://host?username=me&password=p%26s", RedisAddress((("host", 6379),), username="me", password="p&s")),
        ("rediss://host", RedisAddress((("host", 6379),), tls={})),
        ("valkey://me:p@host:7000/3", RedisAddress((("host", 7000),), db=3, username="me", password="p")),
        ("valkeys://host", RedisAddress((("host", 6379),), tls={})),
        ("unix:///run/r%20s.sock", RedisAddress(socket=Path("/run/r s.sock"))),
        ("unix://:p@/run/r.sock?db=4", RedisAddress(socket=Path("/run/r.sock"), db=4, password="p")),
        ("sentinel://host/1?master=m", RedisAddress((("host", 26379),), db=1, master="m")),
        ("sentinels://host?master=m", RedisAddress((("host", 26379),), tls={}, master="m")),
        (
            "sentinel://me:p@one:1,two,[::1]:3/2?master=m&sentinel_username=s&sentinel_password=t%26t",
            RedisAddress((("one", 1), ("two", 26379), ("::1", 3)), None, 2, "me", "p", None, "m", "s", "t&t"),
        ),
    ],
)
def test_what_it_says(url: str, address: RedisAddress) -> None:
    assert RedisAddress.parse(url) == address


@pytest.mark.parametrize("scheme", ["rediss", "valkeys", "sentinels"])
def test_how_tls_is_spoken(scheme: str, certificate: Path) -> None:
    files = f"ssl_ca_certs={certificate}&ssl_certfile={certificate}&ssl_keyfile={certificate}"
    url = f"{scheme}://host?{files}&ssl_cert_reqs=none&ssl_check_hostname=false"

    assert RedisAddress.parse(url + ("&master=m" if scheme == "sentinels" else "")).tls == {
        "ssl_ca_certs": str(certificate),
        "ssl_certfile": str(certificate),
        "ssl_keyfile": str(certificate),
        "ssl_cert_reqs": "none",
        "ssl_check_hostname": False,
    }


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("redis://", "HOST:PORT"),
        ("redis:///0", "HOST:PORT"),
        ("redis://one,two", "HOST:PORT"),
        ("redis://host:port", "HOST:PORT"),
        ("redis://host:99999", "HOST:PORT"),
        ("sentinel://one,,two?master=m", "HOST:PORT"),
        ("redis://:pass/word@host", "percent-encoded"),
        ("redis://:pass?word@host", "percent-encoded"),
        ("redis://:pass#word@host", "percent-encoded"),
        ("redis://:pass[word@host", "percent-encoded"),
        ("redis://:password\N{FULLWIDTH COLON}@host", "percent-encoded"),
        ("redis://password@host", "after a colon"),
        ("redis://host/zero", "database is a number"),
        ("redis://host/-1", "database is a number"),
        ("unix:///run/r.sock?db=x", "database is a number"),
        ("unix://host", "unix:///PATH"),
        ("sentinel://host", "?master=NAME"),
        ("sentinel://host?master=", "?master=NAME"),
        ("redis://host?ssl_ca_certs=ca.crt", "redis:// has no option 'ssl_ca_certs'; it has db, password, username"),
        ("redis://host?master=m", "no option 'master'"),
        ("rediss://host?ssl_cafile=ca.crt", "no option 'ssl_cafile'"),
        ("rediss://host?ssl_ca_certs=nowhere.crt", "ssl_ca_certs: there is no file nowhere.crt"),
        ("rediss://host?ssl_cert_reqs=maybe", "ssl_cert_reqs is one of required, optional, none"),
        ("rediss://host?ssl_check_hostname=1", "ssl_check_hostname is one of true, false"),
    ],
)
def test_what_is_said_of_a_wrong_one(url: str, said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)) as caught:
        RedisAddress.parse(url)

    assert "word" not in str(caught.value).replace("password", "")


@pytest.mark.parametrize("name", ["required", "optional", "none"])
def test_a_certificate_is_required_in_the_words_of_python_too(name: str) -> None:
    assert RedisAddress.parse(f"rediss://host?ssl_cert_reqs=CERT_{name.upper()}").tls == {"ssl_cert_reqs": name}


def test_the_documented_ones_are_right(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("ca.crt", "client.crt", "client.key"):
        Path(name).touch()
    text = (repository / "docs/production.md").read_text(encoding="utf-8")
    urls = re.findall(r"^((?:rediss?|valkeys?|sentinels?|unix)://\S+)", text, re.MULTILINE)

    assert {url.partition(":")[0] for url in urls} == REDIS_SCHEMES
    assert all(RedisAddress.parse(url).password == "PASSWORD" for url in urls)


def test_its_passwords_do_not_show() -> None:
    address = RedisAddress.parse("sentinel://me:secret@host?master=m&sentinel_password=secret")
    assert "secret" not in repr(address)
