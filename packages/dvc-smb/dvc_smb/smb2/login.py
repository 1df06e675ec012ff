"""Connecting, authenticating and opening a share, one blocking step after the other ([MS-SMB2] 3.2.4.2).

What comes out is a :class:`Session`: a socket and all that a connection needs to go on with it. Nothing is left
running: no thread, and on failure no socket.
"""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dvc_smb.smb2 import negotiation, status
from dvc_smb.smb2.authentication import ACCOUNT_ERRORS, Authentication
from dvc_smb.smb2.dialogue import Dialogue
from dvc_smb.smb2.errors import Busy, Disconnected, LoginError, ProtocolError, ShareNotFound
from dvc_smb.smb2.header import SIGNED
from dvc_smb.smb2.messages import IOCTL, NEGOTIATE, SESSION_SETUP, TREE_CONNECT
from dvc_smb.smb2.security import AES_256_CCM, AES_256_GCM, Cipher, Signer, derive

if TYPE_CHECKING:
    from dvc_smb.options import Options


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
        self._dialogue = Dialogue(options.server)

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


class _Steps:
    """The steps from an open socket to an open share."""

    def __init__(self, options: Options, share: str, dialogue: Dialogue) -> None:
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
        authentication = Authentication(self.options)
        # A mechanism that is named gets no SPNEGO token, which offers a choice.
        token: bytes | None = self.negotiated.token if self.options.auth == "negotiate" else None
        while True:
            token = authentication.step(token)
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
        if token and not authentication.complete:
            authentication.step(token)
        if not authentication.complete:
            raise ProtocolError(f"{self.server} ended the authentication before it was complete")
        key = authentication.key
        self.check_last_answer(flags, answer, key)
        return session_flags, key

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
        if state in ACCOUNT_ERRORS:
            if self.options.guest:
                return LoginError(f"{self.server} lets no guest in: name a user and a password")
            return LoginError(f"{self.server} refuses the user {self.options.user!r}: {ACCOUNT_ERRORS[state]}")
        if isinstance(status.os_error(state, ""), ConnectionError):
            return Busy(f"{self.server} {what} for now ({status.name(state)}): try again later")
        return LoginError(f"{self.server} {what} with {status.name(state)}")

    def smb1(self) -> LoginError:
        return LoginError(f"{self.server} speaks only SMB 1, which is not safe: allow SMB 3 on the server")
