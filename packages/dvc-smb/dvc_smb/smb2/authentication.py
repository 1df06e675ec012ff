"""Who logs in, by NTLM, Kerberos or a choice of both (SPNEGO); the protocols themselves are pyspnego's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dvc_smb.smb2 import kerberos, status
from dvc_smb.smb2.errors import LoginError, ProtocolError

if TYPE_CHECKING:
    from spnego import ContextProxy

    from dvc_smb.options import Options

#: What is wrong with an account, by the NTSTATUS that a server gives.
ACCOUNT_ERRORS = {
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


class Authentication:
    """One conversation of tokens.

    Raises:
        LoginError: the options lack something, or a library is missing.
    """

    def __init__(self, options: Options) -> None:
        self._options = options
        self._context = self._start()

    @property
    def complete(self) -> bool:
        return bool(self._context.complete)

    @property
    def key(self) -> bytes:
        """The key that both sides now have."""
        return bytes(self._context.session_key)

    def _start(self) -> ContextProxy:
        import spnego
        from spnego.exceptions import SpnegoError

        options = self._options
        user, password, protocol = options.user, options.password, options.auth
        if options.guest:
            user, password, protocol = user or "guest", "", "ntlm"
        elif options.auth == "ntlm" and (user is None or password is None):
            what = "a user" if user is None else "a password"
            raise LoginError(f"{options.server} needs {what}: set the options user and password, or guest")
        if user is not None and options.domain:
            user = f"{user}@{options.domain}" if options.auth == "kerberos" else f"{options.domain}\\{user}"
        try:
            return spnego.client(
                user,
                password,
                hostname=options.host,
                service="cifs",
                protocol=protocol,
                options=spnego.NegotiateOptions.session_key,
            )
        except ImportError:
            raise _without_kerberos() from None
        except Exception as error:
            if options.auth == "kerberos" and not _has_kerberos():
                raise _without_kerberos() from None
            # With a password, Kerberos asks its server at once, and fails by errors of a library that may not be here.
            if isinstance(error, SpnegoError | ValueError) or kerberos.reason(error):
                raise self._failure(error) from None
            raise

    def step(self, token: bytes | None) -> bytes | None:
        """Return the token that answers the peer's ``token``; None once nothing more is to be said.

        Raises:
            LoginError: the authentication failed.
            ProtocolError: the token is malformed.
        """
        from spnego.exceptions import SpnegoError

        try:
            answer: bytes | None = self._context.step(token)
        except SpnegoError as error:
            raise self._failure(error) from None
        except Exception as error:
            # A token of the peer's making meets a parser that was not written against hostile ones.
            kind = type(error).__name__
            raise ProtocolError(f"{self._options.server} sent a malformed token of authentication ({kind})") from None
        return answer

    def _failure(self, error: Exception) -> LoginError:
        options = self._options
        reason = kerberos.reason(error) or str(getattr(error, "base_message", "") or type(error).__name__).rstrip(".")
        who = f" of {options.user!r}" if options.user else ""
        return LoginError(f"the login{who} at {options.server} by {options.auth} fails: {reason}")


def _without_kerberos() -> LoginError:
    return LoginError('Kerberos needs its libraries: pip install "dvc-smb[kerberos]", or set auth to ntlm')


def _has_kerberos() -> bool:
    from importlib.util import find_spec

    return bool(find_spec("gssapi") and find_spec("krb5"))
