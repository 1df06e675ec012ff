"""A socket on which one request follows the answer to the one before: what a login needs, until its deadline."""

from __future__ import annotations

import hashlib
import socket
import time
from contextlib import suppress

from dvc_smb.smb2 import status
from dvc_smb.smb2.errors import Disconnected, HostNotFound, LoginError, NoAnswer, ProtocolError, Unreachable
from dvc_smb.smb2.header import ANSWER, ASYNC, HEADER, MARK, SIGNED
from dvc_smb.smb2.messages import HEADER_SIZE, NEGOTIATE, SESSION_SETUP, TREE_CONNECT
from dvc_smb.smb2.security import Cipher, Signer

_LARGEST_FRAME = 1 << 18
_CREDITS_ASKED = 256


class Dialogue:
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
            try:
                self._socket = socket.socket(family, kind, protocol)
                self._socket.settimeout(self._left() / (len(addresses) - number))
                self._socket.connect(address)
                self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            except OSError as error:
                self.close()
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
        """Ask anew in the words of SMB 1 ([MS-CIFS] 2.2.4.52), and return whether the server chooses them."""
        dialect = b"\x02NT LM 0.12\0"
        request = b"\xffSMB\x72" + bytes(27) + b"\0" + len(dialect).to_bytes(2, "little") + dialect
        try:
            self.close()
            self.connect(host, port)
            self._send(request)
            answer = bytes(self._receive())
        except OSError:
            return False
        # After the header the count of words, and the number of the dialect; a server without SMB 1 chooses -1.
        return answer[:5] == request[:5] and answer[33:35] == b"\0\0"

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
        fields = HEADER.unpack_from(answer)
        mark, size, _, state, answered, granted, flags, following, identity, _, tree, session, _ = fields
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
        if size > _LARGEST_FRAME:
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
