"""Bits that flip between client and server, at many positions: what arrives is right, or nothing arrives."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from dvc_smb.filesystem import SMB
from smb_servers.fixtures import Place
from smb_servers.proxy import Proxy

FLIPS = 30
SIZES = [900, 70_000, 2_500_000]


@pytest.mark.parametrize("encrypt", [False, True])
@pytest.mark.parametrize("direction", ["to_client", "to_server"])
def test_the_signature_catches_it(
    direction: str, encrypt: bool, place: Place, tmp_path: Path, new_proxy: Callable[..., Proxy]
) -> None:
    proxy = new_proxy(place.server.port)

    def connect() -> SMB:
        # No md5 helps: the names are not those of objects, and `verify` is off.
        return SMB(
            "127.0.0.1",
            port=proxy.port,
            user="alice",
            password=place.server.password,
            timeout=1.0,
            connections=1,
            encrypt=encrypt or None,
            verify=False,
            skip_instance_cache=True,
        )

    client = connect()
    generator = random.Random(f"{direction} {encrypt}")
    here, back = tmp_path / "here", tmp_path / "back"
    refused = 0
    for number in range(FLIPS):
        size = SIZES[number % len(SIZES)]
        content = generator.randbytes(size)
        here.write_bytes(content)
        # Often in the first messages, of a login when the flip before has ended the connection.
        after = generator.randrange(400 if number % 4 == 0 else max(size, 400))
        proxy.flip(direction, after, generator.randrange(8))
        try:
            client.put_file(str(here), f"{place.smb_path}/file{number}")
            assert (place.path / f"file{number}").read_bytes() == content
            client.get_file(f"{place.smb_path}/file{number}", str(back))
            assert back.read_bytes() == content
        except OSError:
            refused += 1
            stored = place.path / f"file{number}"
            assert not stored.exists() or stored.read_bytes() == content
            assert not back.exists()
            # A refused login is not tried again, and an altered one looks like that.
            client = connect()
        back.unlink(missing_ok=True)
    assert proxy.flips >= FLIPS // 2
    assert refused > 0
    # One altered message spoils nothing for good.
    proxy.flip_no_more()
    here.write_bytes(b"unaltered")
    connect().put_file(str(here), f"{place.smb_path}/after")
    connect().get_file(f"{place.smb_path}/after", str(back))
    assert back.read_bytes() == (place.path / "after").read_bytes() == b"unaltered"
