"""What Kerberos has against a login, in words that say what to do.

The codes are those of MIT's krb5.h; GSSAPI passes most of them on as "minor" codes, without their sign, and says by a
"major" code of its own (RFC 2744, 3.9.1) that a ticket has expired.
"""

from __future__ import annotations

import re

EXPIRED = "the ticket has expired: run kinit"
REASONS = {
    -1765328243: "there is no ticket: run kinit, or give a password",
    -1765328352: EXPIRED,
    -1765328353: "the password is wrong",
    -1765328360: "the password is wrong",
    -1765328378: "the realm does not know this user",
    -1765328366: "the account is locked or disabled: ask the realm's administrator",
    -1765328361: "the password has expired: change it first, with kpasswd",
    -1765328347: "this machine's clock differs too much from the realm's",
    -1765328228: "no server of the realm (KDC) answers",
    -1765328230: "the realm's servers (KDC) are unknown: look at /etc/krb5.conf and the option domain",
    -1765328377: "the realm does not know the server by this name: name it in full, as the realm does (cifs/NAME)",
}

_GSS_EXPIRED = (11 << 16, 12 << 16)  # credentials, context
_GSS = re.compile(r"Major \((\d+)\): .+?, Minor \((\d+)\): (.+?)(?:, Context: |$)", re.DOTALL)


def reason(error: BaseException) -> str | None:
    """Return what failed, if the error is Kerberos' own: one of gssapi, krb5, or of pyspnego around these."""
    text = str(error)
    found = _GSS.search(text)
    if found:
        if int(found[1]) in _GSS_EXPIRED:
            return EXPIRED
        return REASONS.get(int(found[2]) - (1 << 32), found[3].rstrip("."))
    code = getattr(error, "err_code", None)  # Krb5Error's; its text ends with the code
    if isinstance(code, int):
        return REASONS.get(code, text.removesuffix(str(code)).strip().rstrip("."))
    return None
