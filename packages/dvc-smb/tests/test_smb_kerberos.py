"""A real realm: logins by ticket and by password, and what a person is told when Kerberos refuses."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator

import pytest
from smb_dvc_process import Repository

from dvc_smb.options import Options
from dvc_smb.smb2 import kerberos
from dvc_smb.smb2.errors import LoginError
from dvc_smb.smb2.login import Login
from smb_servers import kdc
from smb_servers.kdc import Realm
from smb_servers.smbd import Smbd

# How pyspnego tells the errors of GSSAPI.
GSS = "SpnegoError (16): Major (851968): Unspecified GSS failure.  Minor code may provide more information, "

tried = pytest.mark.skipif(bool(kdc.missing()), reason=kdc.missing())


@pytest.fixture(scope="module")
def realm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Realm]:
    with Realm(tmp_path_factory.mktemp("realm") / "kdc", "games") as running:
        yield running


@pytest.fixture(scope="module")
def server(realm: Realm, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Smbd]:
    with Smbd(tmp_path_factory.mktemp("smbd"), globals=realm.globals) as running:
        yield running


@pytest.fixture
def tickets(realm: Realm, monkeypatch: pytest.MonkeyPatch) -> Realm:
    """The realm, known to this process; there is no ticket yet."""
    for name, value in realm.environment.items():
        monkeypatch.setenv(name, value)
    realm.forget_tickets()
    return realm


def log_in(server: Smbd, **given: object) -> bool:
    """Log in; return whether messages are signed."""
    values = {"host": "localhost", "port": server.port, "user": None, "password": None, "auth": "kerberos", **given}
    session = Login(Options(**values), "sambashare").run()  # type: ignore[arg-type]
    session.socket.close()
    return session.signer is not None


def refused(server: Smbd, **given: object) -> str:
    began = time.monotonic()
    with pytest.raises(LoginError) as caught:
        log_in(server, **given)
    assert time.monotonic() - began < 10
    said = str(caught.value)
    assert "\n" not in said
    return said


@tried
@pytest.mark.parametrize("auth", ["kerberos", "negotiate"])
def test_a_ticket_logs_in(tickets: Realm, server: Smbd, auth: str) -> None:
    tickets.get_ticket()
    assert log_in(server, auth=auth), "signed with the ticket's key"


@tried
def test_a_password_logs_in(tickets: Realm, server: Smbd) -> None:
    assert log_in(server, user=tickets.user, domain=kdc.NAME, password=tickets.password)


@tried
def test_dvc_pushes_and_pulls_by_a_ticket(
    tickets: Realm, server: Smbd, new_repository: Callable[..., Repository]
) -> None:
    tickets.get_ticket()
    repository = new_repository(f"smb://localhost:{server.port}/sambashare/dvc")
    repository.run("remote", "modify", "share", "auth", "kerberos")
    (repository.path / "file").write_bytes(os.urandom(3000))
    content = (repository.path / "file").read_bytes()
    repository.run("add", "file")
    repository.run("push")
    shutil.rmtree(repository.path / ".dvc" / "cache")
    (repository.path / "file").unlink()
    repository.run("pull")
    assert (repository.path / "file").read_bytes() == content


@tried
def test_what_kerberos_refuses_is_said_in_one_sentence(tickets: Realm, server: Smbd) -> None:
    where = f"the login at localhost:{server.port} by"
    assert refused(server) == f"{where} kerberos fails: there is no ticket: run kinit, or give a password"
    assert (
        refused(server, auth="negotiate")
        == f"{where} negotiate fails: there is no ticket: run kinit, or give a password"
    )
    account = {"domain": kdc.NAME, "password": "swordfish"}
    told = refused(server, user=tickets.user, **account)
    assert told.endswith("fails: the password is wrong")
    assert "swordfish" not in told
    assert "does not know this user" in refused(server, user="mallory", **account)
    assert "(KDC) are unknown" in refused(server, user=tickets.user, domain="ELSEWHERE.TEST", password="x")
    tickets.get_ticket()
    assert "name it in full" in refused(server, host="127.0.0.1")
    tickets.stop()
    try:
        assert "(KDC) answers" in refused(server, user=tickets.user, domain=kdc.NAME, password=tickets.password)
    finally:
        tickets.start()


@tried
def test_a_ticket_that_has_expired(tickets: Realm, server: Smbd) -> None:
    tickets.get_ticket("1s")
    time.sleep(1.5)
    assert refused(server).endswith(f"fails: {kerberos.EXPIRED}")


def test_what_is_not_in_the_table_is_said_in_the_librarys_words() -> None:
    unknown = GSS + "Minor (100005): No such thing., Context: Processing security token"
    assert kerberos.reason(ValueError(unknown)) == "No such thing"
    known = GSS + "Minor (2529639053): No Kerberos credentials available"
    assert kerberos.reason(ValueError(known)) == kerberos.REASONS[-1765328243]
    assert kerberos.reason(ValueError("Operation not supported")) is None
