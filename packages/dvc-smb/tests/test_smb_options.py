"""What a remote may say, what a URL names, and who logs in."""

import getpass
import io
import itertools
import pickle
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dvc_smb import credentials
from dvc_smb.credentials import complete
from dvc_smb.location import Location, parse_url, strip, url_of
from dvc_smb.options import OptionError, Options

SECRET = "correct-horse-battery"


def test_options_have_safe_defaults():
    options = Options("storage")
    assert (options.port, options.sign, options.verify, options.guest, options.encrypt) == (
        445,
        True,
        True,
        False,
        None,
    )


def test_text_of_a_configuration_file_becomes_values():
    options = Options(
        "storage", port="1445", timeout="2.5", encrypt="true", sign="False", auth="NTLM", connections="2", jobs="8"
    )
    assert options == Options(
        "storage", port=1445, timeout=2.5, encrypt=True, sign=False, auth="ntlm", connections=2, jobs=8
    )


@pytest.mark.parametrize(
    ("option", "value", "right"),
    [
        ("port", "abc", "from 1 to 65535"),
        ("port", 65536, "from 1 to 65535"),
        ("port", True, "whole number"),
        ("timeout", "0", "seconds, more than 0"),
        ("timeout", "nan", "seconds, more than 0"),
        ("timeout", "inf", "seconds, more than 0"),
        ("encrypt", "maybe", "true or false"),
        ("sign", 1, "true or false"),
        ("auth", "basic", "ntlm, kerberos, negotiate"),
        ("connections", 0, "from 1 to 64"),
        ("jobs", "many", "from 1 to 1024"),
        ("verify", "", "true or false"),
        ("guest", "yes", "true or false"),
        ("user", "", "empty"),
        ("host", " ", "empty"),
    ],
)
def test_an_impossible_value_names_the_option_and_what_would_be_right(option, value, right):
    with pytest.raises(OptionError) as raised:
        Options(**{"host": "storage", option: value})
    assert raised.value.option == option
    assert str(raised.value).startswith(option)
    assert right in str(raised.value)


def test_domain_may_be_part_of_the_user():
    options = Options("storage", user="FACTORY\\alice")
    assert (options.domain, options.user) == ("FACTORY", "alice")
    assert Options("storage", user="factory\\alice", domain="FACTORY").user == "alice"
    with pytest.raises(OptionError, match="name one of them"):
        Options("storage", user="FACTORY\\alice", domain="OFFICE")


def test_guest_contradicts_a_password_and_encryption():
    with pytest.raises(OptionError, match="without an account"):
        Options("storage", guest=True, password=SECRET)
    with pytest.raises(OptionError, match="no key to encrypt"):
        Options("storage", guest=True, encrypt=True)


def test_a_password_is_in_no_text_of_the_options():
    options = Options("storage", user="alice", password=SECRET)
    assert SECRET not in repr(options)
    assert SECRET not in str(options)
    assert pickle.loads(pickle.dumps(options)) == options


@pytest.mark.parametrize("value", [SECRET.encode(), 12345678, ["x", SECRET]])
def test_a_password_of_the_wrong_type_is_not_repeated(value):
    with pytest.raises(OptionError) as raised:
        Options("storage", password=value)
    assert str(raised.value) == "password is not text"


@pytest.mark.parametrize(
    ("url", "location"),
    [
        ("smb://storage/sambashare/dvc", Location("storage", "/sambashare/dvc")),
        ("smb://alice@storage:1445/s", Location("storage", "/s", 1445, "alice")),
        ("SMB://storage", Location("storage", "/")),
        ("smb://FACTORY;alice@storage/s/", Location("storage", "/s", None, "alice", "FACTORY")),
        ("smb://FACTORY%5Calice@storage/s", Location("storage", "/s", None, "FACTORY\\alice")),
        ("smb://alice%40factory@storage/s", Location("storage", "/s", None, "alice@factory")),
        ("smb://[::1]:1445/s/x", Location("::1", "/s/x", 1445)),
        ("smb://[fe80::1]/s", Location("fe80::1", "/s")),
        ("smb://storage/s/a b/ü/%20", Location("storage", "/s/a b/ü/ ")),
        ("smb://storage/s/100%/x%25y", Location("storage", "/s/100%/x%y")),
        ("smb://storage/s/a#b?c", Location("storage", "/s/a#b?c")),
        ("smb://storage//s/./x//y/", Location("storage", "/s/x/y")),
    ],
)
def test_a_url_names(url, location):
    assert parse_url(url) == location


@pytest.mark.parametrize(
    ("url", "what"),
    [
        ("smb:///share/dvc", "names no host"),
        ("smb://alice@/share", "names no host"),
        ("smb://storage:/s", ""),
        ("smb://storage:abc/s", "port is 'abc'"),
        ("smb://storage:0/s", "port is '0'"),
        ("smb://[::1/s", "IPv6"),
        ("smb://storage/s/../other", "'..'"),
        ("smb://storage/s/%2E%2E/other", "'..'"),
        ("http://storage/s", "does not start with smb://"),
    ],
)
def test_a_url_that_names_nothing(url, what):
    if not what:
        assert parse_url(url).port is None
        return
    with pytest.raises(OptionError, match=re.escape(what)):
        parse_url(url)


@pytest.mark.parametrize("account", ["alice:{}", "FACTORY;alice:{}", ":{}", "alice:{}@x"])
def test_a_password_in_a_url_is_refused_and_not_repeated(account):
    with pytest.raises(OptionError, match="holds a password, which would be committed") as raised:
        parse_url(f"smb://{account.format(SECRET)}@storage/s")
    assert SECRET not in str(raised.value)
    assert "smb://USER@storage/..." in str(raised.value)


PARTS = st.text(st.characters(exclude_characters="/\0", exclude_categories=("Cs",)), min_size=1).filter(
    lambda part: part not in (".", "..")
)


@given(st.lists(PARTS, min_size=1, max_size=5), st.integers(1, 65535), st.sampled_from(["storage", "::1", "10.0.0.1"]))
def test_every_path_comes_back_from_its_url(parts, port, host):
    path = "/" + "/".join(parts)
    found = parse_url(url_of(Options(host, port), path))
    assert (found.path, found.host, found.port or 445) == (path, host, port)


@given(st.lists(PARTS, max_size=5))
def test_a_path_is_not_decoded_twice(parts):
    path = "/" + "/".join(parts)
    assert strip(path) == path
    assert strip(strip(url_of(Options("storage"), path))) == path


def test_the_environment_logs_in_where_the_remote_has_no_password(tmp_path: Path):
    environment = {"DVC_SMB_USER": "bob", "DVC_SMB_PASSWORD": SECRET}
    found = complete(Options("storage", user="alice"), environment=environment)
    assert (found.user, found.password) == ("bob", SECRET)
    found = complete(Options("storage", user="alice", password="hers"), environment=environment)
    assert (found.user, found.password) == ("alice", "hers")
    found = complete(Options("storage", password="hers"), environment=environment)
    assert (found.user, found.password) == ("bob", "hers")
    mounted = tmp_path / "password"
    mounted.write_text(SECRET + "\n")
    found = complete(Options("storage", user="alice"), environment={"DVC_SMB_PASSWORD_FILE": str(mounted)})
    assert (found.user, found.password) == ("alice", SECRET)


def test_a_user_of_the_environment_may_bring_a_domain():
    found = complete(
        Options("storage", user="alice", domain="OFFICE"),
        environment={"DVC_SMB_USER": "FACTORY\\bob", "DVC_SMB_PASSWORD": SECRET},
    )
    assert (found.domain, found.user) == ("FACTORY", "bob")


def test_what_is_missing_to_log_in_is_said(tmp_path: Path):
    with pytest.raises(OptionError, match=r"no user for storage.*DVC_SMB_USER"):
        complete(Options("storage"), environment={})
    with pytest.raises(OptionError, match=r"no password for alice at storage:1445.*DVC_SMB_PASSWORD"):
        complete(Options("storage", 1445, user="alice"), environment={})
    with pytest.raises(OptionError, match="nowhere, cannot be read: No such file"):
        complete(Options("storage", user="alice"), environment={"DVC_SMB_PASSWORD_FILE": "/nowhere"})
    binary = tmp_path / "binary"
    binary.write_bytes(b"\xff\xfe" + SECRET.encode())
    with pytest.raises(OptionError, match="not UTF-8 text") as raised:
        complete(Options("storage", user="alice"), environment={"DVC_SMB_PASSWORD_FILE": str(binary)})
    assert SECRET not in str(raised.value)


def test_guest_and_kerberos_need_no_password():
    environment = {"DVC_SMB_USER": "bob", "DVC_SMB_PASSWORD": SECRET}
    assert complete(Options("storage", guest=True), environment=environment).password is None
    assert complete(Options("storage", auth="kerberos"), environment={}).password is None


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_person_is_asked_once_for_each_account_and_server(monkeypatch: pytest.MonkeyPatch):
    answers = itertools.count()
    questions: list[str] = []

    def answer(question: str) -> str:
        questions.append(question)
        return f"answer {next(answers)}"

    monkeypatch.setattr(credentials, "_asked", {})
    monkeypatch.setattr(getpass, "getpass", answer)
    monkeypatch.setattr("sys.stdin", Terminal())
    first = complete(Options("storage", user="alice"), ask=True, environment={})
    again = complete(Options("storage", user="alice"), ask=True, environment={})
    other = complete(Options("backup", user="alice"), ask=True, environment={})
    assert (first.password, again.password, other.password) == ("answer 0", "answer 0", "answer 1")
    assert questions == ["Password of alice at storage: ", "Password of alice at backup: "]


def test_nobody_is_asked_without_a_terminal(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(credentials, "_asked", {})
    monkeypatch.setattr("sys.stdin", io.StringIO("not a person\n"))
    with pytest.raises(OptionError, match="needs a terminal to ask for the password of alice at storage"):
        complete(Options("storage", user="alice"), ask=True, environment={})
