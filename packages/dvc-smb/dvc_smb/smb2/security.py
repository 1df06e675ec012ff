"""Keys, signatures and encryption of a session ([MS-SMB2] 3.1.4)."""

from __future__ import annotations

import hmac
from collections.abc import Callable
from itertools import count
from struct import Struct

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import cmac, hashes
from cryptography.hazmat.primitives.ciphers import algorithms
from cryptography.hazmat.primitives.ciphers.aead import AESCCM, AESGCM
from cryptography.hazmat.primitives.kdf.kbkdf import KBKDFHMAC, CounterLocation, Mode

from dvc_smb.smb2.errors import ProtocolError

# Signing algorithms, 2.2.3.1.7, and ciphers, 2.2.3.1.2.
HMAC_SHA256, AES_CMAC, AES_GMAC = 0, 1, 2
AES_128_CCM, AES_128_GCM, AES_256_CCM, AES_256_GCM = 1, 2, 3, 4

#: Size of the header before an encrypted message (2.2.41).
TRANSFORM_SIZE = 52

_TRANSFORM = Struct("<16sIHHQ")
_TRANSFORM_MARK = b"\xfdSMB"
_ENCRYPTED = 1
_GMAC_NONCE = Struct("<QI").pack
_NO_SIGNATURE = bytes(16)

#: Returns the signature of a message, given its id and whether it is an answer.
Signature = Callable[[memoryview, int, bool], bytes]


def derive(key: bytes, label: bytes, context: bytes, length: int = 16) -> bytes:
    """Return a key of ``length`` bytes made from the session's key (3.1.4.2)."""
    return KBKDFHMAC(
        algorithm=hashes.SHA256(),
        mode=Mode.CounterMode,
        length=length,
        rlen=4,
        llen=4,
        location=CounterLocation.BeforeFixed,
        label=label + b"\0",
        context=context,
        fixed=None,
    ).derive(key)


class Signer:
    """Signs requests and checks answers with the key of a session (3.1.4.1, 3.1.5.1)."""

    def __init__(self, algorithm: int, key: bytes) -> None:
        self._signature = _ALGORITHMS[algorithm](key)

    def sign(self, message: memoryview, message_id: int) -> None:
        """Write the signature into a request, whose signature field is still zero."""
        message[48:64] = self._signature(message, message_id, False)

    def check(self, message: memoryview, message_id: int) -> None:
        """Raise ProtocolError unless the answer's signature is right; its signature field is zero afterwards."""
        signature = bytes(message[48:64])
        message[48:64] = _NO_SIGNATURE
        if not hmac.compare_digest(self._signature(message, message_id, True), signature):
            raise ProtocolError("an answer's signature is wrong: something between here and the server changes data")


def _gmac(key: bytes) -> Signature:
    encrypt = AESGCM(key).encrypt
    return lambda message, message_id, answer: encrypt(_GMAC_NONCE(message_id, answer), b"", message)


def _cmac(key: bytes) -> Signature:
    fresh = cmac.CMAC(algorithms.AES(key))

    def signature(message: memoryview, message_id: int, answer: bool) -> bytes:
        mac = fresh.copy()
        mac.update(bytes(message))
        return mac.finalize()

    return signature


def _hmac(key: bytes) -> Signature:
    return lambda message, message_id, answer: hmac.digest(key, message, "sha256")[:16]


_ALGORITHMS: dict[int, Callable[[bytes], Signature]] = {HMAC_SHA256: _hmac, AES_CMAC: _cmac, AES_GMAC: _gmac}


class Cipher:
    """Encrypts requests and decrypts answers with the keys of a session (3.1.4.3, 3.1.5.2)."""

    def __init__(self, algorithm: int, session_id: int, encryption_key: bytes, decryption_key: bytes) -> None:
        kind = AESGCM if algorithm in (AES_128_GCM, AES_256_GCM) else AESCCM
        self._nonce_size = 12 if kind is AESGCM else 11
        self._encrypt = kind(encryption_key).encrypt
        self._decrypt = kind(decryption_key).decrypt
        self._session_id = session_id
        # The keys are this session's alone, so that counting never repeats a nonce.
        self._count = count(1)

    def seal(self, messages: bytearray | memoryview) -> list[bytes | memoryview]:
        """Return the parts of the encrypted form of ``messages``."""
        nonce = next(self._count).to_bytes(self._nonce_size, "little")
        head = _TRANSFORM.pack(nonce.ljust(16, b"\0"), len(messages), 0, _ENCRYPTED, self._session_id)
        sealed = self._encrypt(nonce, messages, head)
        return [_TRANSFORM_MARK, sealed[-16:], head, memoryview(sealed)[:-16]]

    def open(self, frame: memoryview) -> memoryview:
        """Return what is encrypted in ``frame``.

        Raises:
            ProtocolError: it is not encrypted, not for this session, or altered.
        """
        if len(frame) < TRANSFORM_SIZE or frame[:4] != _TRANSFORM_MARK:
            raise ProtocolError("the server sent an unencrypted answer in an encrypted session")
        nonce, size, _, flags, session_id = _TRANSFORM.unpack_from(frame, 20)
        if flags != _ENCRYPTED or session_id != self._session_id or size != len(frame) - TRANSFORM_SIZE:
            raise ProtocolError("the head of an encrypted answer is malformed")
        try:
            data = b"".join((frame[TRANSFORM_SIZE:], frame[4:20]))
            return memoryview(self._decrypt(nonce[: self._nonce_size], data, frame[20:TRANSFORM_SIZE]))
        except InvalidTag:
            raise ProtocolError(
                "an encrypted answer was altered: something between here and the server changes data"
            ) from None
