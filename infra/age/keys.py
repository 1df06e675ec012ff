"""Who can read a file: whoever has the identity of a recipient, or the passphrase.

Source: https://c2sp.org/age, recipient types X25519 and scrypt.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import secrets
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from infra.age import bech32

FILE_KEY_BYTES = 16
_KEY_BYTES = 32
_WRAPPED_BYTES = FILE_KEY_BYTES + 16
_X25519, _SCRYPT = "age-encryption.org/v1/X25519", "age-encryption.org/v1/scrypt"
_NO_NONCE = bytes(12)  # each wrapping key is used once
_WORK = 18
"""Binary logarithm of scrypt's cost, as the ``age`` command has it: about a second and 256 MB."""
_MOST_WORK = 22
_SALT_BYTES = 16


@dataclass(frozen=True)
class Stanza:
    """A header's part for one recipient: its words, and the file key that only this recipient can unwrap."""

    words: tuple[str, ...]
    body: bytes = field(repr=False)


def make_identity() -> str:
    """Return a new secret key, as ``age-keygen`` makes it."""
    secret = X25519PrivateKey.generate().private_bytes(Encoding.Raw, PrivateFormat.Raw, NoEncryption())
    return bech32.encode("age-secret-key-", secret).upper()


def recipient_of(identity: str) -> str:
    """Return the public key of an identity: ``age1...``.

    Raises:
        ValueError: it is none; the message does not repeat it.
    """
    return bech32.encode("age", _raw(_secret(identity).public_key()))


def check_recipient(recipient: str) -> None:
    """Look whether files can be encrypted to a recipient.

    Raises:
        ValueError: they cannot, and why.
    """
    if len(bech32.decode("age", recipient)) != _KEY_BYTES:
        raise ValueError(f"is no key of {_KEY_BYTES} bytes")


def wrap_for_recipient(file_key: bytes, recipient: str) -> Stanza:
    """Return the stanza by which whoever has the recipient's identity gets at the file key."""
    public = bech32.decode("age", recipient)
    ephemeral = X25519PrivateKey.generate()
    share = _raw(ephemeral.public_key())
    shared = ephemeral.exchange(X25519PublicKey.from_public_bytes(public))
    wrapped = ChaCha20Poly1305(derive(shared, share + public, _X25519)).encrypt(_NO_NONCE, file_key, None)
    return Stanza(("X25519", encode64(share)), wrapped)


def wrap_for_passphrase(file_key: bytes, passphrase: str) -> Stanza:
    """Return the stanza by which whoever knows the passphrase gets at the file key."""
    salt = os.urandom(_SALT_BYTES)
    wrapped = ChaCha20Poly1305(_scrypt(passphrase, salt, _WORK)).encrypt(_NO_NONCE, file_key, None)
    return Stanza(("scrypt", encode64(salt), str(_WORK)), wrapped)


def unwrap_by_identity(stanza: Stanza, identity: str) -> bytes | None:
    """Return the file key; None: the stanza is for somebody else."""
    if stanza.words[:1] != ("X25519",) or len(stanza.words) != 2 or len(stanza.body) != _WRAPPED_BYTES:
        return None
    secret, share = _secret(identity), decode64(stanza.words[1])
    try:
        shared = secret.exchange(X25519PublicKey.from_public_bytes(share))
    except ValueError:
        return None
    return _unwrap(stanza.body, derive(shared, share + _raw(secret.public_key()), _X25519))


def unwrap_by_passphrase(stanza: Stanza, passphrase: str) -> bytes | None:
    """Return the file key; None: the passphrase is another one.

    Raises:
        ValueError: the work that the file asks for is too much.
    """
    if stanza.words[:1] != ("scrypt",) or len(stanza.words) != 3 or len(stanza.body) != _WRAPPED_BYTES:
        return None
    if not stanza.words[2].isdigit() or int(stanza.words[2]) > _MOST_WORK:
        raise ValueError(f"asks for more work than 2^{_MOST_WORK}")
    return _unwrap(stanza.body, _scrypt(passphrase, decode64(stanza.words[1]), int(stanza.words[2])))


def derive(key: bytes, salt: bytes, info: str) -> bytes:
    """Return HKDF-SHA-256 of ``key``."""
    return HKDF(SHA256(), _KEY_BYTES, salt, info.encode()).derive(key)


def encode64(data: bytes) -> str:
    """Return base 64 without padding."""
    return base64.b64encode(data).decode().rstrip("=")


def decode64(text: str) -> bytes:
    """Return the bytes of base 64 without padding.

    Raises:
        ValueError: it is none, or not in its one canonical form.
    """
    try:
        data = base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except binascii.Error:
        raise ValueError("is no base 64") from None
    if not secrets.compare_digest(encode64(data), text):
        raise ValueError("is no canonical base 64")
    return data


def _unwrap(body: bytes, key: bytes) -> bytes | None:
    try:
        return ChaCha20Poly1305(key).decrypt(_NO_NONCE, body, None)
    except InvalidTag:
        return None


def _scrypt(passphrase: str, salt: bytes, work: int) -> bytes:
    # Of OpenSSL's memory limit, which by default is less than one such computation needs.
    memory = 1024 * (1 << work) + (1 << 25)
    given = passphrase.encode()
    return hashlib.scrypt(given, salt=_SCRYPT.encode() + salt, n=1 << work, r=8, p=1, maxmem=memory, dklen=_KEY_BYTES)


def _secret(identity: str) -> X25519PrivateKey:
    secret = bech32.decode("age-secret-key-", identity)
    if len(secret) != _KEY_BYTES:
        raise ValueError(f"is no key of {_KEY_BYTES} bytes")
    return X25519PrivateKey.from_private_bytes(secret)


def _raw(public: X25519PublicKey) -> bytes:
    return public.public_bytes(Encoding.Raw, PublicFormat.Raw)
