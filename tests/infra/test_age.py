"""age's format: the published key, whole and broken files, and the real age where it is installed."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from infra.age.files import (
    AgeError,
    asks_for_passphrase,
    decrypt_by_identity,
    decrypt_by_passphrase,
    encrypt_for_passphrase,
    encrypt_for_recipients,
)
from infra.age.keys import check_recipient, make_identity, recipient_of

# Of the specification: the identity is 32 times the byte 0x42.
IDENTITY = "AGE-SECRET-KEY-1GFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPQ4EGAEX"
RECIPIENT = "age1zvkyg2lqzraa2lnjvqej32nkuu0ues2s82hzrye869xeexvn73equnujwj"
SIZES = (0, 1, 65535, 65536, 65537, 131072, 200000)


def test_the_specifications_key_is_read_and_written() -> None:
    assert recipient_of(IDENTITY) == RECIPIENT
    check_recipient(RECIPIENT)


@pytest.mark.parametrize("size", SIZES)
def test_what_is_encrypted_is_decrypted(size: int) -> None:
    identity = make_identity()
    data = bytes(range(256)) * (size // 256 + 1)
    encrypted = encrypt_for_recipients(data[:size], [RECIPIENT, recipient_of(identity)])
    assert decrypt_by_identity(encrypted, identity) == data[:size]
    assert decrypt_by_identity(encrypted, IDENTITY) == data[:size]
    with pytest.raises(AgeError, match="it is for others"):
        decrypt_by_identity(encrypted, make_identity())


def test_a_passphrase_opens_what_it_closed() -> None:
    encrypted = encrypt_for_passphrase(b"data", "a passphrase, with blanks")
    assert asks_for_passphrase(encrypted)
    assert decrypt_by_passphrase(encrypted, "a passphrase, with blanks") == b"data"
    with pytest.raises(AgeError, match="passphrase is another one"):
        decrypt_by_passphrase(encrypted, "another")


def test_each_bit_is_protected_and_each_end() -> None:
    encrypted = encrypt_for_recipients(b"x" * 70000, [RECIPIENT])
    for place in (30, 60, 120, encrypted.index(b"---") + 10, encrypted.index(b"---") + 60, 60000, len(encrypted) - 1):
        changed = bytearray(encrypted)
        changed[place] ^= 1
        with pytest.raises(AgeError):
            decrypt_by_identity(bytes(changed), IDENTITY)
    for end in (0, 10, 100, 200, 65536 + 200, len(encrypted) - 1):
        with pytest.raises(AgeError):
            decrypt_by_identity(encrypted[:end], IDENTITY)
    with pytest.raises(AgeError, match="is no file in the format"):
        asks_for_passphrase(b"PK\x03\x04")


def test_a_file_cannot_ask_for_all_of_the_memory() -> None:
    changed, times = re.subn(rb"(-> scrypt \S+) \d+", rb"\1 40", encrypt_for_passphrase(b"data", "one"), count=1)
    assert times == 1
    with pytest.raises(AgeError, match="work"):
        decrypt_by_passphrase(changed, "one")


@pytest.mark.parametrize("wrong", [RECIPIENT[:-1] + "q", f"ssh-ed25519 {RECIPIENT}", "", IDENTITY])
def test_a_mistyped_recipient_is_none(wrong: str) -> None:
    with pytest.raises(ValueError, match=r"no public key"):
        check_recipient(wrong)


@pytest.mark.parametrize("size", SIZES)
def test_the_real_age_reads_ours_and_we_read_its(tmp_path: Path, size: int) -> None:
    if shutil.which("age") is None:
        pytest.skip("the age command is not installed")
    identity = tmp_path / "identity"
    identity.write_text(f"{IDENTITY}\n")
    data = b"abc" * (size // 3) + b"d" * (size % 3)
    ours = encrypt_for_recipients(data, [RECIPIENT])
    read = subprocess.run(["age", "--decrypt", "-i", str(identity)], input=ours, capture_output=True, check=True)
    assert read.stdout == data
    made = subprocess.run(["age", "-r", RECIPIENT], input=data, capture_output=True, check=True)
    assert decrypt_by_identity(made.stdout, IDENTITY) == data
    made = subprocess.run(["age-keygen"], capture_output=True, text=True, check=True)
    shown, secret = made.stdout.splitlines()[1:]
    assert recipient_of(secret) == shown.removeprefix("# public key: ")
