"""How to reach a server and log in: the values, what each may be, and the sentence for one that may not.

The same checks serve DVC's configuration (where every value is text), fsspec's keyword arguments and Python callers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from typing import Any

DEFAULT_PORT = 445
MECHANISMS = ("ntlm", "kerberos", "negotiate")
#: Longest wait, in seconds, for a host to accept a connection and to answer a login: a person is told within ten.
LOGIN_TIMEOUT = 5.0


class OptionError(ValueError):
    """An option has a name or a value that cannot be right; the message is one sentence and holds no value of a secret.

    Attributes:
        option: the option's name.
    """

    def __init__(self, option: str, sentence: str) -> None:
        super().__init__(sentence)
        self.option = option


@dataclass(frozen=True)
class Options:
    """Everything needed to reach a server and log in.

    Attributes:
        host: name or address of the server, an IPv6 address without brackets.
        port: TCP port.
        user: account; ``DOMAIN\\user`` fills ``domain``.
        password: never in ``repr``.
        domain: the account's domain or workgroup.
        timeout: seconds that one answer may take.
        encrypt: True: encrypt everything; False: never; None: what the share and the server demand.
        sign: sign every message and check every signature.
        auth: one of ``MECHANISMS``; ``negotiate`` is Kerberos where there is a ticket, NTLM otherwise.
        connections: TCP connections to the server.
        jobs: files in flight at once.
        verify: compare the md5 of an object with its name while it arrives.
        guest: log in without an account, which cannot be signed.

    Raises:
        OptionError: a value is impossible, alone or beside another.
    """

    host: str
    port: int = DEFAULT_PORT
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    domain: str | None = None
    timeout: float = 30.0
    encrypt: bool | None = None
    sign: bool = True
    auth: str = "ntlm"
    connections: int = 4
    jobs: int = 64
    verify: bool = True
    guest: bool = False

    def __post_init__(self) -> None:
        for entry in fields(self):
            value = getattr(self, entry.name)
            if value is None and entry.default is None:
                continue
            object.__setattr__(self, entry.name, check(entry.name, value))
        self._split_user()
        if self.guest and self.password:
            raise OptionError("guest", "guest logs in without an account: remove the password, or set guest to false")
        if self.guest and self.encrypt:
            raise OptionError("guest", "a guest session has no key to encrypt with: set encrypt or guest to false")

    def _split_user(self) -> None:
        if self.user is None or "\\" not in self.user:
            return
        domain, _, user = self.user.partition("\\")
        if self.domain is not None and self.domain.casefold() != domain.casefold():
            raise OptionError("domain", f"domain is {self.domain!r}, but user names {domain!r}: name one of them")
        object.__setattr__(self, "domain", domain or None)
        object.__setattr__(self, "user", user)

    @property
    def server(self) -> str:
        """Return the host as it is written in a URL, with the port when it is not 445."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == DEFAULT_PORT else f"{host}:{self.port}"

    @property
    def login_timeout(self) -> float:
        """Return the seconds that connecting and logging in may take together."""
        return min(self.timeout, LOGIN_TIMEOUT)


def check(option: str, value: object) -> Any:
    """Return ``value`` as the option's type, from that type or from text.

    Raises:
        OptionError: there is no such option, or the value is not one of it.
    """
    if option not in _CHECKS:
        raise OptionError(option, unknown(option, _CHECKS))
    return _CHECKS[option](option, value)


def unknown(option: str, known: Mapping[str, object]) -> str:
    """Return the sentence for an option that is not in ``known``."""
    near = get_close_matches(option, known, n=1)
    remedy = f"did you mean '{near[0]}'?" if near else f"there are {', '.join(sorted(known))}"
    return f"unknown option '{option}': {remedy}"


def _text(option: str, value: object) -> str:
    if isinstance(value, str) and value.strip() and "\0" not in value:
        return value
    raise OptionError(option, f"{option} is empty or not text: give one, or remove the option")


def _secret(option: str, value: object) -> str:
    if isinstance(value, str):
        return value
    raise OptionError(option, f"{option} is not text")


def _truth(option: str, value: object) -> bool:
    if isinstance(value, bool):
        return value
    word = value.casefold() if isinstance(value, str) else ""
    if word in ("true", "false"):
        return word == "true"
    raise OptionError(option, f"{option} is {value!r}: expected true or false")


def _whole(least: int, most: int) -> Callable[[str, object], int]:
    def checked(option: str, value: object) -> int:
        try:
            number = int(value) if isinstance(value, int | str) and not isinstance(value, bool) else least - 1
        except ValueError:
            number = least - 1
        if least <= number <= most:
            return number
        raise OptionError(option, f"{option} is {value!r}: expected a whole number from {least} to {most}")

    return checked


def _seconds(option: str, value: object) -> float:
    try:
        number = float(value) if isinstance(value, int | float | str) and not isinstance(value, bool) else 0.0
    except ValueError:
        number = 0.0
    if number > 0 and math.isfinite(number):
        return number
    raise OptionError(option, f"{option} is {value!r}: expected seconds, more than 0")


def _mechanism(option: str, value: object) -> str:
    word = value.casefold() if isinstance(value, str) else ""
    if word in MECHANISMS:
        return word
    raise OptionError(option, f"{option} is {value!r}: expected one of {', '.join(MECHANISMS)}")


_CHECKS: dict[str, Callable[[str, object], Any]] = {
    "host": _text,
    "port": _whole(1, 65535),
    "user": _text,
    "password": _secret,
    "domain": _text,
    "timeout": _seconds,
    "encrypt": _truth,
    "sign": _truth,
    "auth": _mechanism,
    "connections": _whole(1, 64),
    "jobs": _whole(1, 1024),
    "verify": _truth,
    "guest": _truth,
    # How a remote gets its password; :mod:`dvc_smb.credentials` answers it.
    "ask_password": _truth,
}
