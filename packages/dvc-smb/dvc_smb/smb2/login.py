"""Connecting, authenticating and opening a share, one blocking step after the other ([MS-SMB2] 3.2.4.2).

The authentication itself (NTLM, Kerberos, SPNEGO) is pyspnego's. What comes out is a :class:`Session`: a socket and
all that a connection needs to go on with it. Nothing is left running: no thread, and on failure no socket.
"""

from __future__ import annotations

import hashlib
import os
import socket
import time
from contextlib import suppress
from dataclasses import dataclass
from struct import Struct
from typing import TYPE_CHECKING

from dvc_smb.smb2 import negotiation, status
from dvc_smb.smb2.errors import (
    Busy,
    Disconnected,
    HostNotFound,
    LoginError,
    NoAnswer,
    ProtocolError,
    ShareNotFound,
    Unreachable,
)
from dvc_smb.smb2.messages import HEADER_SIZE, IOCTL, NEGOTIATE, SESSION_SETUP, TREE_CONNECT
from dvc_smb.smb2.security import AES_256_CCM, AES_256_GCM, Cipher, Signer, derive

if TYPE_CHECKING:
    from spnego import ContextProxy

    from dvc_smb.options import Options

#: [MS-SMB2] 2.2.1: mark, size, charge, status, command, credits, flags, next, message id, 0, tree, session, signature.
HEADER = Struct("<4sHHIHHIIQIIQ16s")
MARK = b"\xfeSMB"
ANSWER, ASYNC, RELATED, SIGNED = 0x1, 0x2, 0x4, 0x8

_LARGEST_LOGIN_FRAME = 1 << 18
_CREDITS_ASKED = 256

_ACCOUNT_ERRORS = {
    0xC000006D: "user or password is wrong",
    0xC000006A: "the password is wrong",
    0xC0000064: "there is no such user",
    0xC000006E: "the account's restrictions forbid it (an empty password?)",
    0xC000006F: "the account may not log in at this hour",
    0xC0000070: "the account may not log in from this machine",
    0xC0000071: "the password has expired: change it first",
    0xC0000072: "the account is disabled: ask the server's administrator",
    0xC0000193: "the account has expired: ask the server's administrator",
    0xC0000224: "the password must be changed first",
    0xC0000234: "the account is locked: ask the server's administrator",
    0xC000015B: "the account may not log in over the network",
    0xC000005E: "no domain controller answers the server",
    0xC0000233: "no domain controller answers the server",
    0xC0000133: "this machine's clock differs too much from the domain controller's",
    status.ACCESS_DENIED: "it gives this account no access",
}


@dataclass
class Session:
    """A socket on which a user has logged in and opened a share.

    Attributes:
        socket: blocking, with TCP_NODELAY; whoever takes the session closes it.
        peer: ``host:port``, for messages.
        message_id: the next one to use.
        credits: granted and not yet spent.
        signer: None if nothing is signed: the user has said so, a guest has no key, or everything is encrypted.
        cipher: None if nothing is encrypted.
        max_read, max_write, max_transact: bytes the server takes or gives in one request.
    """

    socket: socket.socket
    peer: str
    session_id: int
    tree_id: int
    message_id: int
    credits: int
    signer: Signer | None
    cipher: Cipher | None
    max_read: int
    max_write: int
    max_transact: int


class Login:
    """One attempt to log in; ``run`` it in a thread, ``abort`` it from any other."""

    def __init__(self, options: Options, share: str) -> None:
        self._options = options
        self._share = share
        self._dialogue = _Dialogue(options.server)

    def run(self) -> Session:
        """Connect to the share, within ``options.login_timeout`` seconds (a silent name server apart).

        Raises:
            HostNotFound, Unreachable, NoAnswer, Disconnected, Busy: the server cannot be reached, or not now.
            LoginError: the account, or the kind of session that the options ask for, is refused.
            ShareNotFound: the server has no such share, or it is no folder.
            ProtocolError: the server does not follow the protocol.
        """
        try:
            self._dialogue.start_clock(self._options.login_timeout)
            self._dialogue.connect(self._options.host, self._options.port)
            return _Steps(self._options, self._share, self._dialogue).run()
        except BaseException:
            self._dialogue.close()
            raise

    def abort(self) -> None:
        """Make ``run`` end soon, with Disconnected."""
        self._dialogue.abort()


class _Dialogue:
    """One request, one answer, until the deadline."""

    def __init__(self, peer: str) -> None:
        self.peer = peer
        self.session_id = 0
        self.tree_id = 0
        self.message_id = 0
        self.credits = 1
        self.transcript = bytes(64)
        self._deadline = 0.0
        self._aborted = False
        self._socket: socket.socket | None = None

    @property
    def socket(self) -> socket.socket:
        if self._socket is None:
            raise RuntimeError("not connected")
        return self._socket

    def start_clock(self, timeout: float) -> None:
        self._deadline = time.monotonic() + timeout

    def connect(self, host: str, port: int) -> None:
        try:
            addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (socket.gaierror, UnicodeError):
            raise HostNotFound(f"the host {host!r} is unknown: check its name, or this machine's name server") from None
        refusal: OSError | None = None
        for number, (family, kind, protocol, _, address) in enumerate(addresses):
            self._socket = socket.socket(family, kind, protocol)
            try:
                self._socket.settimeout(self._left() / (len(addresses) - number))
                self._socket.connect(address)
                self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            except OSError as error:
                self._socket.close()
                refusal = error
            else:
                return
        if isinstance(refusal, TimeoutError):
            raise self._silence()
        if isinstance(refusal, ConnectionRefusedError):
            raise Unreachable(f"nothing listens at {self.peer}: check the port, and that the server runs")
        why = refusal.strerror if refusal else "it has no address"
        raise Unreachable(f"{self.peer} cannot be reached ({why}): check the network, or a firewall between")

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()

    def only_speaks_smb1(self, host: str, port: int) -> bool:
        """Ask anew in the words of SMB 1 ([MS-CIFS] 2.2.4.52); a server that speaks more has no reason to answer."""
        dialect = b"\x02NT LM 0.12\0"
        request = b"\xffSMB\x72" + bytes(27) + b"\0" + len(dialect).to_bytes(2, "little") + dialect
        try:
            self.close()
            self.connect(host, port)
            self._send(request)
            return bytes(self._receive()[:5]) == request[:5]
        except OSError:
            return False

    def abort(self) -> None:
        self._aborted = True
        if self._socket is not None:
            with suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)

    def ask(
        self, command: int, body: bytes, signer: Signer | None = None, cipher: Cipher | None = None
    ) -> tuple[int, int, memoryview]:
        """Send one request and return status, flags and bytes of its answer, which is checked if there is a key."""
        if not self.credits:
            raise ProtocolError(f"{self.peer} lets nothing be asked during the login (no credits)")
        message_id, self.message_id, self.credits = self.message_id, self.message_id + 1, self.credits - 1
        flags = SIGNED if signer and not cipher else 0
        charge = 1 if command != NEGOTIATE else 0
        head = HEADER.pack(
            MARK, 64, charge, 0, command, _CREDITS_ASKED, flags, 0, message_id, 0, self.tree_id, self.session_id, b""
        )
        message = bytearray(head + body)
        if signer and not cipher:
            signer.sign(memoryview(message), message_id)
        self._send(b"".join(cipher.seal(message)) if cipher else bytes(message))
        if command in (NEGOTIATE, SESSION_SETUP):
            self._remember(message)
        while True:
            answer = self._receive()
            if cipher:
                answer = cipher.open(answer)
            state, flags, tree_id, session_id = self._read_header(answer, command, message_id)
            if not (state == status.PENDING and flags & ASYNC):
                break
        if signer and not cipher:
            if not flags & SIGNED:
                raise self._unsigned(state)
            signer.check(answer, message_id)
        if command == NEGOTIATE or (command == SESSION_SETUP and state == status.MORE_PROCESSING_REQUIRED):
            self._remember(answer)
        if command == SESSION_SETUP:
            self.session_id = session_id
        elif command == TREE_CONNECT:
            self.tree_id = tree_id
        return state, flags, answer

    def _unsigned(self, state: int) -> OSError:
        if state:
            return LoginError(f"{self.peer} refuses with {status.name(state)}, without signature")
        return ProtocolError(f"{self.peer} sent an unsigned answer in a signed session")

    def _remember(self, message: bytes | bytearray | memoryview) -> None:
        """Update the hash that binds the keys to the negotiation (3.1.4.4.1)."""
        self.transcript = hashlib.sha512(self.transcript + message).digest()

    def _read_header(self, answer: memoryview, command: int, message_id: int) -> tuple[int, int, int, int]:
        if len(answer) < HEADER_SIZE:
            raise ProtocolError(f"{self.peer} sent an answer of {len(answer)} bytes: is it an SMB server?")
        mark, size, _, state, answered, granted, flags, following, identity, _, tree, session, _ = HEADER.unpack_from(
            answer
        )
        if mark != MARK or size != 64 or not flags & ANSWER:
            raise ProtocolError(f"{self.peer} sent something else than an answer of SMB 2 or 3: is it an SMB server?")
        if answered != command or identity != message_id or following:
            raise ProtocolError(f"{self.peer} answered a question that was not asked")
        self.credits += granted
        return state, flags, tree, session

    def _send(self, message: bytes) -> None:
        try:
            self.socket.settimeout(self._left())
            self.socket.sendall(len(message).to_bytes(4, "big") + message)
        except TimeoutError:
            raise self._silence() from None
        except OSError as error:
            raise self._lost(error.strerror) from None

    def _receive(self) -> memoryview:
        size = int.from_bytes(self._receive_exactly(4), "big")
        if size > _LARGEST_LOGIN_FRAME:
            raise ProtocolError(f"{self.peer} announced an answer of {size} bytes: is it an SMB server?")
        return memoryview(self._receive_exactly(size))

    def _receive_exactly(self, size: int) -> bytearray:
        buffer = bytearray(size)
        view = memoryview(buffer)
        while view:
            try:
                self.socket.settimeout(self._left())
                count = self.socket.recv_into(view)
            except TimeoutError:
                raise self._silence() from None
            except OSError as error:
                raise self._lost(error.strerror) from None
            if not count:
                raise self._lost("closed by the server")
            view = view[count:]
        return buffer

    def _left(self) -> float:
        if self._aborted:
            raise Disconnected(f"the login at {self.peer} was given up")
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise self._silence()
        return left

    def _silence(self) -> NoAnswer:
        return NoAnswer(f"{self.peer} does not answer: check host, port, and a firewall between")

    def _lost(self, why: str | None) -> OSError:
        if self.message_id <= 1:
            return Disconnected(
                f"{self.peer} ended the connection ({why}) instead of negotiating: is it an SMB server, or restarting?"
            )
        return Disconnected(f"{self.peer} ended the connection during the login ({why})")


class _Steps:
    """The steps from an open socket to an open share."""

    def __init__(self, options: Options, share: str, dialogue: _Dialogue) -> None:
        self.options = options
        self.share = share
        self.dialogue = dialogue
        self.server = dialogue.peer
        self.client_guid = os.urandom(16)
        self.security_mode = negotiation.SIGNING_ENABLED
        if options.sign and not options.guest:
            self.security_mode = negotiation.SIGNING_REQUIRED

    def run(self) -> Session:
        self.negotiated = self.negotiate()
        flags, key = self.authenticate()
        signer, cipher = self.secure(flags, key)
        tree_is_encrypted = self.open_share(signer, cipher if self.encrypts(flags) else None)
        if signer and self.negotiated.dialect < negotiation.SMB_3_1_1:
            self.validate(signer, cipher if self.encrypts(flags) or tree_is_encrypted else None)
        encrypted = self.encrypts(flags) or tree_is_encrypted
        self.dialogue.socket.settimeout(None)
        return Session(
            self.dialogue.socket,
            self.server,
            self.dialogue.session_id,
            self.dialogue.tree_id,
            self.dialogue.message_id,
            self.dialogue.credits,
            signer if self.options.sign and not encrypted else None,
            cipher if encrypted else None,
            self.negotiated.max_read,
            self.negotiated.max_write,
            self.negotiated.max_transact,
        )

    def encrypts(self, session_flags: int) -> bool:
        return bool(session_flags & negotiation.SESSION_ENCRYPTED) or self.options.encrypt is True

    def negotiate(self) -> negotiation.Negotiated:
        request = negotiation.negotiate_request(self.client_guid, self.security_mode)
        try:
            state, _, answer = self.dialogue.ask(NEGOTIATE, request)
        except Disconnected:
            if self.dialogue.only_speaks_smb1(self.options.host, self.options.port):
                raise self.smb1() from None
            raise
        if state == status.NOT_SUPPORTED:
            raise LoginError(f"{self.server} speaks none of SMB 2.1 to 3.1.1: allow SMB 3 on the server")
        if state:
            raise self.refusal(state, "refuses the negotiation")
        negotiated = negotiation.parse_negotiate(answer)
        if negotiated.security_mode & negotiation.SIGNING_REQUIRED and not self.options.sign:
            raise LoginError(f"{self.server} demands signing, but sign is false: remove that option")
        if self.options.encrypt and negotiated.cipher is None:
            raise LoginError(f"{self.server} cannot encrypt, but encrypt is true: remove that option, or use SMB 3")
        return negotiated

    def authenticate(self) -> tuple[int, bytes]:
        """Return the session's flags and its key; checks the last answer's signature, which proves the key."""
        context = self.context()
        # A mechanism that is named gets no SPNEGO token, which offers a choice.
        token: bytes | None = self.negotiated.token if self.options.auth == "negotiate" else None
        while True:
            token = self.step(context, token)
            if token is None:
                raise ProtocolError(f"{self.server} wants more of an authentication that is complete")
            request = negotiation.session_setup_request(token, self.security_mode)
            state, flags, answer = self.dialogue.ask(SESSION_SETUP, request)
            if state not in (status.SUCCESS, status.MORE_PROCESSING_REQUIRED):
                raise self.refusal(state, "refuses the login")
            session_flags, token = negotiation.parse_session_setup(answer)
            if state == status.SUCCESS:
                break
        guest = session_flags & (negotiation.SESSION_GUEST | negotiation.SESSION_ANONYMOUS)
        if guest:
            self.check_guest()
            return session_flags, b""
        if token and not context.complete:
            self.step(context, token)
        if not context.complete:
            raise ProtocolError(f"{self.server} ended the authentication before it was complete")
        key = bytes(context.session_key)
        self.check_last_answer(flags, answer, key)
        return session_flags, key

    def context(self) -> ContextProxy:
        import spnego
        from spnego.exceptions import SpnegoError

        options = self.options
        user, password = options.user, options.password
        if options.guest:
            user, password = user or "guest", ""
        elif options.auth == "ntlm" and (user is None or password is None):
            what = "a user" if user is None else "a password"
            raise LoginError(f"{self.server} needs {what}: set the options user and password, or guest")
        if user is not None and options.domain:
            user = f"{user}@{options.domain}" if options.auth == "kerberos" else f"{options.domain}\\{user}"
        try:
            return spnego.client(
                user,
                password,
                hostname=options.host,
                service="cifs",
                protocol=options.auth,
                options=spnego.NegotiateOptions.session_key,
            )
        except ImportError:
            raise self.without_kerberos() from None
        except (SpnegoError, ValueError) as error:
            if options.auth == "kerberos" and not _has_kerberos():
                raise self.without_kerberos() from None
            raise self.unauthenticated(error) from None

    def step(self, context: ContextProxy, token: bytes | None) -> bytes | None:
        from spnego.exceptions import SpnegoError

        try:
            return context.step(token)
        except SpnegoError as error:
            raise self.unauthenticated(error) from None
        except Exception as error:
            # A token of the peer's making meets a parser that was not written against hostile ones.
            raise ProtocolError(
                f"{self.server} sent a malformed authentication token ({type(error).__name__})"
            ) from None

    def check_guest(self) -> None:
        if not self.options.guest:
            raise LoginError(
                f"{self.server} took {self.options.user!r} for a guest: user or password is wrong (set guest if meant)"
            )
        if self.options.encrypt:
            raise LoginError(f"{self.server} gave a guest session, which cannot be encrypted: name a user")

    def check_last_answer(self, flags: int, answer: memoryview, key: bytes) -> None:
        """The last SESSION_SETUP answer is signed with the new key (3.2.5.3.1)."""
        if flags & SIGNED:
            message_id = self.dialogue.message_id - 1
            Signer(self.negotiated.signing, self.signing_key(key)).check(answer, message_id)
        elif self.options.sign or self.negotiated.dialect == negotiation.SMB_3_1_1:
            raise ProtocolError(f"{self.server} did not sign its answer to the login")

    def signing_key(self, key: bytes) -> bytes:
        short = key[:16].ljust(16, b"\0")
        if self.negotiated.dialect == negotiation.SMB_3_1_1:
            return derive(short, b"SMBSigningKey", self.dialogue.transcript)
        if self.negotiated.dialect >= negotiation.SMB_3_0:
            return derive(short, b"SMB2AESCMAC", b"SmbSign\0")
        return short

    def secure(self, session_flags: int, key: bytes) -> tuple[Signer | None, Cipher | None]:
        """Return what signs and what encrypts, each whether used or not (3.1.4.2)."""
        demanded = session_flags & negotiation.SESSION_ENCRYPTED
        if demanded and self.options.encrypt is False:
            raise LoginError(f"{self.server} demands encryption, but encrypt is false: remove that option")
        if not key:
            return None, None
        signer = Signer(self.negotiated.signing, self.signing_key(key))
        algorithm = self.negotiated.cipher
        if algorithm is None:
            if demanded:
                raise ProtocolError(f"{self.server} demands encryption without having agreed on a cipher")
            return signer, None
        if self.negotiated.dialect == negotiation.SMB_3_1_1:
            long = algorithm in (AES_256_CCM, AES_256_GCM)
            base, length = (key, 32) if long else (key[:16].ljust(16, b"\0"), 16)
            to_server = derive(base, b"SMBC2SCipherKey", self.dialogue.transcript, length)
            to_client = derive(base, b"SMBS2CCipherKey", self.dialogue.transcript, length)
        else:
            base = key[:16].ljust(16, b"\0")
            to_server = derive(base, b"SMB2AESCCM", b"ServerIn \0")
            to_client = derive(base, b"SMB2AESCCM", b"ServerOut\0")
        return signer, Cipher(algorithm, self.dialogue.session_id, to_server, to_client)

    def open_share(self, signer: Signer | None, cipher: Cipher | None) -> bool:
        """Open the share, signed or encrypted in any case (3.2.4.2.4); return whether it demands encryption."""
        request = negotiation.tree_connect_request(self.options.host, self.share)
        state, _, answer = self.dialogue.ask(TREE_CONNECT, request, signer, cipher)
        if state == status.BAD_NETWORK_NAME:
            raise ShareNotFound(f"{self.server} has no share {self.share!r}: check the first part of the URL's path")
        if state == status.ACCESS_DENIED:
            who = "guests" if self.options.guest else f"the user {self.options.user!r}"
            hint = (
                "" if self.negotiated.cipher else " (it may demand encryption, which this server's SMB version lacks)"
            )
            raise LoginError(
                f"{self.server} gives {who} no access to the share {self.share!r}: ask its administrator{hint}"
            )
        if state:
            raise self.refusal(state, f"does not open the share {self.share!r}")
        kind, flags = negotiation.parse_tree_connect(answer)
        if kind != negotiation.DISK:
            raise ShareNotFound(f"the share {self.share!r} of {self.server} holds no files: name a folder's share")
        encrypted = bool(flags & negotiation.SHARE_ENCRYPTED)
        if encrypted and self.options.encrypt is False:
            raise LoginError(f"the share {self.share!r} demands encryption, but encrypt is false: remove that option")
        if encrypted and (self.negotiated.cipher is None or signer is None):
            raise LoginError(f"the share {self.share!r} demands encryption, which this session has no key for")
        return encrypted

    def validate(self, signer: Signer, cipher: Cipher | None) -> None:
        """Ask, signed, what the server has understood: before 3.1.1 nothing else protects the negotiation."""
        request = negotiation.validate_request(self.client_guid, self.security_mode)
        state, _, answer = self.dialogue.ask(IOCTL, request, signer, cipher)
        if state in (status.FILE_CLOSED, status.INVALID_DEVICE_REQUEST, status.NOT_SUPPORTED):
            return  # a server older than this question; its signature has proved the answer
        if state:
            raise self.refusal(state, "does not confirm the negotiation")
        negotiation.check_validated(answer, self.negotiated)

    def refusal(self, state: int, what: str) -> OSError:
        if state in _ACCOUNT_ERRORS:
            if self.options.guest:
                return LoginError(f"{self.server} lets no guest in: name a user and a password")
            return LoginError(f"{self.server} refuses the user {self.options.user!r}: {_ACCOUNT_ERRORS[state]}")
        if isinstance(status.os_error(state, ""), ConnectionError):
            return Busy(f"{self.server} {what} for now ({status.name(state)}): try again later")
        return LoginError(f"{self.server} {what} with {status.name(state)}")

    def unauthenticated(self, error: Exception) -> LoginError:
        reason = str(getattr(error, "base_message", "") or type(error).__name__).rstrip(".")
        return LoginError(f"the login of {self.options.user!r} at {self.server} by {self.options.auth} fails: {reason}")

    def smb1(self) -> LoginError:
        return LoginError(f"{self.server} speaks only SMB 1, which is not safe: allow SMB 3 on the server")

    def without_kerberos(self) -> LoginError:
        return LoginError('Kerberos needs its libraries: pip install "pyspnego[kerberos]", or set auth to ntlm')


def _has_kerberos() -> bool:
    from importlib.util import find_spec

    return bool(find_spec("gssapi") and find_spec("krb5"))
