"""Claims about what the guard lets through: public addresses and plain http URLs."""

from __future__ import annotations

import pytest

from stylear.curate.fetch.connections import is_allowed
from stylear.curate.fetch.refused import RequestRefused, plain_url


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "127.9.9.9",
        "10.0.0.1",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "0.0.0.0",
        "224.0.0.1",
        "240.0.0.1",
        "255.255.255.255",
        "192.0.2.1",
        "::1",
        "::",
        "fe80::1",
        "fe80::1%eth0",
        "fc00::1",
        "fec0::1",
        "ff02::1",
        "2001:db8::1",
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "::127.0.0.1",
        "2002:7f00:1::",
        "64:ff9b::7f00:1",
        "not an address",
    ],
)
def test_addresses_that_are_not_public_are_refused(address: str) -> None:
    assert not is_allowed(address)


@pytest.mark.parametrize("address", ["93.184.215.14", "8.8.8.8", "2606:4700::1111"])
def test_public_addresses_are_allowed(address: str) -> None:
    assert is_allowed(address)


def test_a_recipe_may_open_a_network() -> None:
    import ipaddress

    networks = [ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("fd00::/8")]
    assert is_allowed("127.0.0.1", networks)
    assert is_allowed("::ffff:127.0.0.1", networks)
    assert is_allowed("fd12::1", networks)
    assert not is_allowed("10.0.0.1", networks)


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("file:///etc/passwd", "not-http"),
        ("ftp://example.org/a", "not-http"),
        ("data:image/png;base64,AA", "not-http"),
        ("javascript:alert(1)", "not-http"),
        ("", "not-http"),
        ("http:/example.org", "not-http"),
        ("http://", "bad-url"),
        ("http://user:secret@example.org/", "bad-url"),
        ("http://example.org:99999/", "bad-url"),
        ("http://exa mple.org/", "bad-url"),
        ("http://example.org\\@127.0.0.1/", "bad-url"),
        ("http://example.org/\r\nHost: other", "bad-url"),
        ("http://[::1/", "bad-url"),
        ("http://example.org/" + "a" * 5000, "bad-url"),
    ],
)
def test_only_plain_http_urls_pass(url: str, reason: str) -> None:
    with pytest.raises(RequestRefused) as refused:
        plain_url(url)
    assert refused.value.name == reason


def test_urls_are_encoded_once() -> None:
    assert (
        plain_url(" HTTP://Example.org/a b%20c?q=ü#part ")
        == "http://example.org/a%20b%20c?q=%C3%BC"
    )
    assert plain_url("https://münchen.de:8443") == "https://xn--mnchen-3ya.de:8443"
    assert plain_url("http://[2606:4700::1]:80/a") == "http://[2606:4700::1]:80/a"
