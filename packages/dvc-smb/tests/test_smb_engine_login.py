"""What a person is told when a login fails: one sentence, in time, without a secret; and nothing is left behind."""

from __future__ import annotations

import asyncio
import gc
import logging
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

import pytest

from dvc_smb.options import Options
from dvc_smb.smb2 import messages
from dvc_smb.smb2.connection import Connection
from dvc_smb.smb2.errors import (
    Disconnected,
    HostNotFound,
    LoginError,
    NoAnswer,
    ShareNotFound,
    SMBError,
    Unreachable,
)
from dvc_smb.smb2.login import Login
from dvc_smb.smb2.pool import Pool
from smb_servers.smbd import Share, Smbd

OLD = {"server min protocol": "SMB2_10"}


def options(server: Smbd, **others: object) -> Options:
    values = {"host": server.host, "port": server.port, "user": server.user, "password": server.password, **others}
    return Options(**values)  # type: ignore[arg-type]


def refused(given: Options, share: str = "sambashare", kind: type[SMBError] = LoginError) -> str:
    """Return the sentence that the failing login gives; check that it is one, and that no secret is in it."""
    threads, sockets = threading.active_count(), open_sockets()
    started = time.monotonic()
    with pytest.raises(kind) as caught:
        Login(given, share).run()
    assert time.monotonic() - started < 10
    del started
    sentence = str(caught.value)
    assert "\n" not in sentence
    assert given.host in sentence or share in sentence or "Kerberos" in sentence
    assert not given.password or given.password not in sentence + repr(caught.value)
    gc.collect()
    assert (threading.active_count(), open_sockets()) == (threads, sockets)
    return sentence


def open_sockets() -> int:
    count = 0
    for descriptor in Path("/proc/self/fd").iterdir():
        with suppress(OSError):
            count += str(descriptor.readlink()).startswith("socket:")
    return count


def test_wrong_password_and_unknown_user(smbd: Smbd) -> None:
    assert "'alice': user or password is wrong" in refused(options(smbd, password="wrong-secret"))
    assert "'bob': user or password is wrong" in refused(options(smbd, user="bob"))


def test_missing_user_and_password(smbd: Smbd) -> None:
    assert "needs a user" in refused(options(smbd, user=None))
    assert "needs a password" in refused(options(smbd, password=None))


def administer(server: Smbd, *command: str) -> None:
    """Run one of Samba's tools on the server's accounts."""
    tool, *arguments = command
    flag = "-c" if tool == "smbpasswd" else "-s"
    subprocess.run([tool, flag, f"{server._state}/smb.conf", *arguments], check=True, capture_output=True, timeout=20)


def account_of(server: Smbd) -> str:
    """Return the Unix account behind the server's user."""
    return (Path(f"{server._state}") / "users.map").read_text().split()[0]


def test_disabled_account(new_smbd: Callable[..., Smbd]) -> None:
    server = new_smbd()
    administer(server, "smbpasswd", "-d", account_of(server))
    assert "the account is disabled" in refused(options(server))


def test_locked_account(new_smbd: Callable[..., Smbd]) -> None:
    server = new_smbd()
    administer(server, "pdbedit", "-P", "bad lockout attempt", "-C", "1")
    assert "user or password is wrong" in refused(options(server, password="wrong-secret"))
    assert "the account is locked" in refused(options(server))


def test_expired_account(new_smbd: Callable[..., Smbd]) -> None:
    server = new_smbd()
    administer(server, "pdbedit", "-u", account_of(server), "--kickoff-time=1000000000")
    assert "the account has expired" in refused(options(server))


def test_expired_password(new_smbd: Callable[..., Smbd]) -> None:
    server = new_smbd()
    administer(server, "pdbedit", "-P", "maximum password age", "-C", "1")
    time.sleep(2.1)
    sentence = refused(options(server))
    assert "the password has expired" in sentence or "the password must be changed" in sentence


def test_wrong_share_is_no_missing_file(smbd: Smbd) -> None:
    assert "has no share 'nope'" in refused(options(smbd), "nope", ShareNotFound)
    assert not issubclass(ShareNotFound, FileNotFoundError)
    assert "holds no files" in refused(options(smbd), "IPC$", ShareNotFound)


def test_share_that_this_user_may_not_enter(new_smbd: Callable[..., Smbd]) -> None:
    server = new_smbd(shares={"closed": Share(options={"valid users": "root"})})
    assert "gives the user 'alice' no access to the share 'closed'" in refused(options(server), "closed")


def test_unknown_host_closed_port_and_silence() -> None:
    assert "unknown" in refused(Options(host="no-such-host.invalid", user="a", password="b-secret"), kind=HostNotFound)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        silent = Options(host="127.0.0.1", port=listener.getsockname()[1], user="a", password="b-secret")
        assert silent.timeout == 30  # what nobody has set
        assert "does not answer" in refused(silent, kind=NoAnswer)
    assert "nothing listens" in refused(silent, kind=Unreachable)


def test_server_of_smb_1_only(new_smbd: Callable[..., Smbd]) -> None:
    server = new_smbd(globals={"server min protocol": "NT1", "server max protocol": "NT1"})
    assert "speaks only SMB 1" in refused(options(server))


def test_server_of_smb_2_0_2_only(new_smbd: Callable[..., Smbd]) -> None:
    server = new_smbd(globals={"server min protocol": "SMB2_02", "server max protocol": "SMB2_02"})
    assert "none of SMB 2.1 to 3.1.1" in refused(options(server))


def test_signing_that_the_server_demands_and_the_user_refuses(smbd: Smbd) -> None:
    assert "demands signing, but sign is false" in refused(options(smbd, sign=False))


def test_encryption_that_one_side_demands_and_the_other_refuses(smbd: Smbd, new_smbd: Callable[..., Smbd]) -> None:
    assert "demands encryption, but encrypt is false" in refused(options(smbd, encrypt=False), "encrypted")
    demanding = new_smbd(globals={"server smb encrypt": "required"})
    assert "demands encryption, but encrypt is false" in refused(options(demanding, encrypt=False))
    Login(options(demanding), "sambashare").run().socket.close()
    old = new_smbd(shares={"secret": Share(encrypt=True)}, globals={**OLD, "server max protocol": "SMB2_10"})
    assert "cannot encrypt, but encrypt is true" in refused(options(old, encrypt=True), "secret")
    assert "it may demand encryption" in refused(options(old), "secret")


@pytest.mark.skipif(find_spec("gssapi") is not None, reason="the libraries of Kerberos are installed")
def test_kerberos_without_its_libraries(smbd: Smbd) -> None:
    assert "pip install" in refused(options(smbd, auth="kerberos"))


def test_guest_only_when_meant(new_smbd: Callable[..., Smbd]) -> None:
    shares = {"sambashare": Share(), "public": Share(guest=True)}
    server = new_smbd(shares, {"map to guest": "Bad User", "server signing": "auto"})
    guest = {"user": None, "password": None, "guest": True}
    (server.path("public") / "hello").write_bytes(b"to all")

    assert "took 'bob' for a guest" in refused(options(server, user="bob"), "public")
    assert "gives guests no access" in refused(options(server, **guest))
    session = Login(options(server, **guest), "public").run()
    assert (session.signer, session.cipher) == (None, None)

    async def work() -> int:
        connection = await Connection.open(session, 5.0)
        (future,) = await connection.send([messages.create("hello", messages.READ_DATA)])
        size = messages.parse_create((await future).message).size
        await connection.close()
        return size

    assert asyncio.run(work()) == 6


def test_guest_where_no_guest_is_let_in(smbd: Smbd) -> None:
    assert "lets no guest in" in refused(options(smbd, user=None, password=None, guest=True))


@pytest.mark.parametrize("auth", ["ntlm", "negotiate"])
def test_domain_and_mechanism(smbd: Smbd, auth: str) -> None:
    Login(options(smbd, domain="WORKGROUP", auth=auth), "sambashare").run().socket.close()


def test_log_holds_no_secret(smbd: Smbd, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]) -> None:
    given = options(smbd)
    with caplog.at_level(logging.DEBUG):
        Login(given, "sambashare").run().socket.close()
        refused(options(smbd, user="bob"))
    printed = capfd.readouterr()
    assert smbd.password not in caplog.text + printed.out + printed.err + repr(given)
    assert printed.out + printed.err == ""


def test_login_that_is_given_up_leaves_nothing() -> None:
    async def work(port: int) -> None:
        pool = Pool(Options(host="127.0.0.1", port=port, user="a", password="b"), "share")
        picking = asyncio.ensure_future(pool.pick())
        await asyncio.sleep(0.2)
        await pool.close()
        with pytest.raises(Disconnected):
            await picking

    threads = threading.active_count()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        started = time.monotonic()
        asyncio.run(work(listener.getsockname()[1]))
        while threading.active_count() > threads and time.monotonic() - started < 3:
            time.sleep(0.01)
        assert threading.active_count() == threads


def test_import_of_the_engine_needs_no_authentication_library() -> None:
    """``dvc`` starts in every repository, with a share or without."""
    program = "import sys, dvc_smb.smb2.pool; sys.exit('spnego' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
