"""Encrypts and decrypts whole files in memory. Source of the format: https://c2sp.org/age, version 1."""

from __future__ import annotations

import hmac
import os
from collections.abc import Callable, Sequence
from functools import partial

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from infra.age.keys import (
    FILE_KEY_BYTES,
    Stanza,
    decode64,
    derive,
    encode64,
    unwrap_by_identity,
    unwrap_by_passphrase,
    wrap_for_passphrase,
    wrap_for_recipient,
)

_VERSION = b"age-encryption.org/v1\n"
_CHUNK, _TAG = 65536, 16
_NONCE = 16
_COLUMNS = 64


class AgeError(ValueError):
    """A file cannot be decrypted: with these keys, or at all."""


def encrypt_for_recipients(data: bytes, recipients: Sequence[str]) -> bytes:
    """Return ``data`` encrypted for each of ``recipients``, one or more (``age1...``)."""
    file_key = os.urandom(FILE_KEY_BYTES)
    return _encrypt(data, file_key, [wrap_for_recipient(file_key, recipient) for recipient in recipients])


def encrypt_for_passphrase(data: bytes, passphrase: str) -> bytes:
    """Return ``data`` encrypted by a passphrase; takes about a second."""
    file_key = os.urandom(FILE_KEY_BYTES)
    return _encrypt(data, file_key, [wrap_for_passphrase(file_key, passphrase)])


def decrypt_by_identity(encrypted: bytes, identity: str) -> bytes:
    """Return what was encrypted for the recipient of ``identity``.

    Raises:
        AgeError: it was for others, was changed, or is cut off.
    """
    return _decrypt(encrypted, partial(unwrap_by_identity, identity=identity), "no recipient of it has this identity")


def decrypt_by_passphrase(encrypted: bytes, passphrase: str) -> bytes:
    """Return what was encrypted by a passphrase.

    Raises:
        AgeError: the passphrase is another one, or the file was changed or is cut off.
    """
    return _decrypt(encrypted, partial(unwrap_by_passphrase, passphrase=passphrase), "the passphrase is another one")


def asks_for_passphrase(encrypted: bytes) -> bool:
    """Return whether a file was encrypted by a passphrase.

    Raises:
        AgeError: it is no such file.
    """
    stanzas, _, _ = _read_header(encrypted)
    return stanzas[0].words[:1] == ("scrypt",)


def _encrypt(data: bytes, file_key: bytes, stanzas: Sequence[Stanza]) -> bytes:
    header = _VERSION + b"".join(map(_written, stanzas)) + b"---"
    mac = hmac.digest(derive(file_key, b"", "header"), header, "sha256")
    nonce = os.urandom(_NONCE)
    cipher = ChaCha20Poly1305(derive(file_key, nonce, "payload"))
    # An empty file has one chunk, an empty one; no other file has an empty chunk.
    starts = range(0, max(len(data), 1), _CHUNK)
    chunks = [
        cipher.encrypt(_chunk_nonce(index, last=start == starts[-1]), data[start : start + _CHUNK], None)
        for index, start in enumerate(starts)
    ]
    return b"".join((header, b" ", encode64(mac).encode(), b"\n", nonce, *chunks))


def _decrypt(encrypted: bytes, unwrap: Callable[[Stanza], bytes | None], otherwise: str) -> bytes:
    stanzas, header, rest = _read_header(encrypted)
    try:
        file_key = next((key for key in map(unwrap, stanzas) if key is not None), None)
    except ValueError as error:
        raise AgeError(f"its header {error}") from None
    if file_key is None:
        raise AgeError(otherwise)
    mac, _, payload = rest.partition(b"\n")
    expected = hmac.digest(derive(file_key, b"", "header"), header, "sha256")
    if not hmac.compare_digest(encode64(expected).encode(), mac.removeprefix(b" ")):
        raise AgeError("its header was changed")
    cipher = ChaCha20Poly1305(derive(file_key, payload[:_NONCE], "payload"))
    chunks = payload[_NONCE:]
    starts = range(0, max(len(chunks), 1), _CHUNK + _TAG)
    try:
        found = [
            cipher.decrypt(_chunk_nonce(index, last=start == starts[-1]), chunks[start : start + _CHUNK + _TAG], None)
            for index, start in enumerate(starts)
        ]
    except InvalidTag:
        raise AgeError("it was changed, or its end is missing") from None
    return b"".join(found)


def _chunk_nonce(index: int, *, last: bool) -> bytes:
    return index.to_bytes(11, "big") + bytes([last])


def _written(stanza: Stanza) -> bytes:
    body = encode64(stanza.body)
    # The line that ends a body is a shorter one, an empty one where it has to be.
    lines = [body[start : start + _COLUMNS] for start in range(0, len(body) + 1, _COLUMNS)]
    return "".join(f"{line}\n" for line in (f"-> {' '.join(stanza.words)}", *lines)).encode()


def _read_header(encrypted: bytes) -> tuple[list[Stanza], bytes, bytes]:
    """Return the stanzas, the header up to its ``---``, and what follows that."""
    if not encrypted.startswith(_VERSION):
        raise AgeError("it is no file in the format of age")
    header, mark, rest = encrypted.partition(b"\n---")
    stanzas: list[Stanza] = []
    try:
        lines = iter(header[len(_VERSION) :].decode("ascii").split("\n"))
        for line in lines:
            kind, *words = line.split(" ")
            if kind != "->" or not words:
                raise AgeError("its header cannot be read")
            body = ""
            for part in lines:
                body += part
                if len(part) < _COLUMNS:
                    break
            stanzas.append(Stanza(tuple(words), decode64(body)))
    except ValueError:
        raise AgeError("its header cannot be read") from None
    if not mark or not stanzas:
        raise AgeError("its header cannot be read")
    if len(stanzas) > 1 and any(stanza.words[0] == "scrypt" for stanza in stanzas):
        raise AgeError("a passphrase and other recipients cannot be mixed")
    return stanzas, header + b"\n---", rest
