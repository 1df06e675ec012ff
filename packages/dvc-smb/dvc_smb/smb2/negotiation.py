"""The messages that open a connection: NEGOTIATE, SESSION_SETUP, TREE_CONNECT ([MS-SMB2] 2.2.3 to 2.2.10)."""

from __future__ import annotations

import os
from dataclasses import dataclass
from struct import Struct, pack, unpack_from

from dvc_smb.smb2.errors import ProtocolError
from dvc_smb.smb2.messages import CREDIT_SIZE, HEADER_SIZE
from dvc_smb.smb2.security import (
    AES_128_CCM,
    AES_128_GCM,
    AES_256_CCM,
    AES_256_GCM,
    AES_CMAC,
    AES_GMAC,
    HMAC_SHA256,
)

SMB_2_1, SMB_3_0, SMB_3_0_2, SMB_3_1_1 = 0x0210, 0x0300, 0x0302, 0x0311
#: What this client offers. 2.0.2 has no large reads, SMB 1 no protection.
DIALECTS = (SMB_2_1, SMB_3_0, SMB_3_0_2, SMB_3_1_1)

SIGNING_ENABLED, SIGNING_REQUIRED = 1, 2
CAPABILITY_LARGE_MTU, CAPABILITY_ENCRYPTION = 0x4, 0x40
CLIENT_CAPABILITIES = CAPABILITY_LARGE_MTU | CAPABILITY_ENCRYPTION
SESSION_GUEST, SESSION_ANONYMOUS, SESSION_ENCRYPTED = 1, 2, 4
SHARE_ENCRYPTED = 0x8000
DISK = 1

_PREAUTH, _ENCRYPTION, _SIGNING = 1, 2, 8
_SHA_512 = 1
_CIPHERS = (AES_128_GCM, AES_128_CCM, AES_256_GCM, AES_256_CCM)
_SIGNINGS = (AES_GMAC, AES_CMAC, HMAC_SHA256)
_FSCTL_VALIDATE_NEGOTIATE_INFO = 0x00140204

_NEGOTIATE = Struct("<HHHHI16sIHH")
_NEGOTIATED = Struct("<HHHH16sIIII16xHHI")
_CONTEXT = Struct("<HHI")
_SESSION_SETUP = Struct("<HBBIIHHQ")
_SESSION = Struct("<HHHH")
_TREE = Struct("<HBxIII")
_IOCTL = Struct("<HHI16sIIIIIIII")
_IOCTL_ANSWER = Struct("<HHI16sIIIIII")
_VALIDATE = Struct("<I16sHH")


@dataclass(frozen=True)
class Negotiated:
    """What client and server have agreed on; sizes in bytes."""

    dialect: int
    security_mode: int
    server_guid: bytes
    capabilities: int
    max_transact: int
    max_read: int
    max_write: int
    token: bytes
    cipher: int | None
    signing: int


def negotiate_request(client_guid: bytes, security_mode: int) -> bytes:
    """Return the body of NEGOTIATE with its contexts for 3.1.1."""
    fixed = 36 + 2 * len(DIALECTS)
    contexts = (
        (_PREAUTH, pack("<HHH", 1, 32, _SHA_512) + os.urandom(32)),
        (_ENCRYPTION, pack(f"<{len(_CIPHERS) + 1}H", len(_CIPHERS), *_CIPHERS)),
        (_SIGNING, pack(f"<{len(_SIGNINGS) + 1}H", len(_SIGNINGS), *_SIGNINGS)),
    )
    offset = -(-(HEADER_SIZE + fixed) // 8) * 8
    head = _NEGOTIATE.pack(
        36, len(DIALECTS), security_mode, 0, CLIENT_CAPABILITIES, client_guid, offset, len(contexts), 0
    )
    body = bytearray(head + pack(f"<{len(DIALECTS)}H", *DIALECTS))
    for kind, data in contexts:
        body += bytes(-len(body) % 8) + _CONTEXT.pack(kind, len(data), 0) + data
    return bytes(body)


def parse_negotiate(message: memoryview) -> Negotiated:
    """Read the server's choice."""
    if len(message) < HEADER_SIZE + 64:
        raise ProtocolError("the server's answer to NEGOTIATE is cut short")
    kind, mode, dialect, contexts, guid, capabilities, transact, read, write, at, size, context_at = (
        _NEGOTIATED.unpack_from(message, HEADER_SIZE)
    )
    if kind != 65 or dialect not in DIALECTS or at + size > len(message) or not (transact and read and write):
        raise ProtocolError("the server's answer to NEGOTIATE is malformed")
    cipher: int | None = AES_128_CCM if dialect >= SMB_3_0 and capabilities & CAPABILITY_ENCRYPTION else None
    signing = AES_CMAC if dialect >= SMB_3_0 else HMAC_SHA256
    if dialect == SMB_3_1_1:
        cipher, signing = _parse_contexts(message, context_at, contexts)
    most = None if capabilities & CAPABILITY_LARGE_MTU else CREDIT_SIZE
    transact, read, write = (min(value, most or value) for value in (transact, read, write))
    token = bytes(message[at : at + size])
    return Negotiated(dialect, mode, guid, capabilities, transact, read, write, token, cipher, signing)


def _parse_contexts(message: memoryview, at: int, count: int) -> tuple[int | None, int]:
    """Return cipher and signing algorithm of 3.1.1 (2.2.4.1)."""
    cipher, signing, hashed = None, AES_CMAC, False
    for _ in range(count):
        at += -at % 8
        if at < HEADER_SIZE + 64 or at + _CONTEXT.size > len(message):
            raise ProtocolError("the server's answer to NEGOTIATE has malformed contexts")
        kind, size, _ = _CONTEXT.unpack_from(message, at)
        at += _CONTEXT.size
        data = message[at : at + size]
        at += size
        if kind not in (_PREAUTH, _ENCRYPTION, _SIGNING):
            continue
        if len(data) != size or size < 4:
            raise ProtocolError("the server's answer to NEGOTIATE has malformed contexts")
        # One choice each; only the hash has the length of a salt before it.
        number, first = unpack_from("<HH", data)
        if kind == _PREAUTH:
            hashed = size >= 6 and number == 1 and unpack_from("<H", data, 4)[0] == _SHA_512
        elif number != 1 or first not in ((0, *_CIPHERS) if kind == _ENCRYPTION else _SIGNINGS):
            raise ProtocolError("the server chose an algorithm that was not offered")
        elif kind == _ENCRYPTION:
            cipher = first or None
        else:
            signing = first
    if not hashed:
        raise ProtocolError("the server chose no hash to protect the negotiation, which SMB 3.1.1 demands")
    return cipher, signing


def session_setup_request(token: bytes, security_mode: int) -> bytes:
    """Return the body of SESSION_SETUP with one token of the authentication."""
    return _SESSION_SETUP.pack(25, 0, security_mode, 0, 0, HEADER_SIZE + _SESSION_SETUP.size, len(token), 0) + token


def parse_session_setup(message: memoryview) -> tuple[int, bytes]:
    """Return the session's flags and the server's token."""
    if len(message) < HEADER_SIZE + _SESSION.size:
        raise ProtocolError("the server's answer to SESSION_SETUP is cut short")
    kind, flags, at, size = _SESSION.unpack_from(message, HEADER_SIZE)
    if kind != 9 or at + size > len(message):
        raise ProtocolError("the server's answer to SESSION_SETUP is malformed")
    return flags, bytes(message[at : at + size])


def tree_connect_request(host: str, share: str) -> bytes:
    """Return the body of TREE_CONNECT."""
    path = rf"\\{host}\{share}".encode("utf-16-le")
    return pack("<HHHH", 9, 0, HEADER_SIZE + 8, len(path)) + path


def parse_tree_connect(message: memoryview) -> tuple[int, int]:
    """Return the share's type and flags."""
    if len(message) < HEADER_SIZE + 16:
        raise ProtocolError("the server's answer to TREE_CONNECT is cut short")
    size, kind, flags, _, _ = _TREE.unpack_from(message, HEADER_SIZE)
    if size != 16:
        raise ProtocolError("the server's answer to TREE_CONNECT is malformed")
    return kind, flags


def validate_request(client_guid: bytes, security_mode: int) -> bytes:
    """Return the body of the IOCTL that asks what the server has understood (2.2.31.4)."""
    data = _VALIDATE.pack(CLIENT_CAPABILITIES, client_guid, security_mode, len(DIALECTS))
    data += pack(f"<{len(DIALECTS)}H", *DIALECTS)
    at = HEADER_SIZE + _IOCTL.size
    head = _IOCTL.pack(57, 0, _FSCTL_VALIDATE_NEGOTIATE_INFO, b"\xff" * 16, at, len(data), 0, 0, 0, 24, 1, 0)
    return head + data


def check_validated(message: memoryview, negotiated: Negotiated) -> None:
    """Raise ProtocolError if the server has understood something else than was negotiated (3.2.5.14.12)."""
    if len(message) < HEADER_SIZE + 48:
        raise ProtocolError("the server's answer to VALIDATE_NEGOTIATE_INFO is cut short")
    at, size = _IOCTL_ANSWER.unpack_from(message, HEADER_SIZE)[6:8]
    if size != _VALIDATE.size or at + size > len(message):
        raise ProtocolError("the server's answer to VALIDATE_NEGOTIATE_INFO is malformed")
    said = _VALIDATE.unpack_from(message, at)
    agreed = (negotiated.capabilities, negotiated.server_guid, negotiated.security_mode, negotiated.dialect)
    if said != agreed:
        raise ProtocolError("something between here and the server has weakened the negotiation: trust no such network")
