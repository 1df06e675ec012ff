"""Encrypts and decrypts whole files in memory, in the format of age: https://c2sp.org/age, version 1."""

from __future__ import annotations

from collections.abc import Sequence

import pyrage

from infra.age.keys import check_recipient, read_identity

_VERSION = b"age-encryption.org/v1\n"


class AgeError(ValueError):
    """A file cannot be decrypted: with these keys, or at all."""


def encrypt_for_recipients(data: bytes, recipients: Sequence[str]) -> bytes:
    """Return ``data`` encrypted for each of ``recipients``, one or more (``age1...``).

    Raises:
        ValueError: one of them is no recipient.
    """
    return bytes(pyrage.encrypt(data, [check_recipient(recipient) for recipient in recipients]))


def encrypt_for_passphrase(data: bytes, passphrase: str) -> bytes:
    """Return ``data`` encrypted by a passphrase; takes about a second."""
    return bytes(pyrage.passphrase.encrypt(data, passphrase))


def decrypt_by_identity(encrypted: bytes, identity: str) -> bytes:
    """Return what was encrypted for the recipient of ``identity``.

    Raises:
        AgeError: it was for others, was changed, or is cut off.
        ValueError: ``identity`` is none.
    """
    secret = read_identity(identity)
    try:
        return bytes(pyrage.decrypt(encrypted, [secret]))
    except pyrage.DecryptError as error:
        raise AgeError(f"it is for others, was changed, or is cut off: {error}") from None


def decrypt_by_passphrase(encrypted: bytes, passphrase: str) -> bytes:
    """Return what was encrypted by a passphrase.

    Raises:
        AgeError: the passphrase is another one, or the file was changed or is cut off.
    """
    try:
        return bytes(pyrage.passphrase.decrypt(encrypted, passphrase))
    except pyrage.DecryptError as error:
        raise AgeError(f"the passphrase is another one, or it was changed or is cut off: {error}") from None


def asks_for_passphrase(encrypted: bytes) -> bool:
    """Return whether a file was encrypted by a passphrase.

    Raises:
        AgeError: it is no such file.
    """
    if not encrypted.startswith(_VERSION):
        raise AgeError("it is no file in the format of age")
    return encrypted[len(_VERSION) :].startswith(b"-> scrypt ")
