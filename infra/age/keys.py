"""Who can read a file in age's format: whoever has the identity of one of its recipients."""

from __future__ import annotations

from pyrage import IdentityError, RecipientError
from pyrage.x25519 import Identity, Recipient


def make_identity() -> str:
    """Return a new secret key, as ``age-keygen`` makes it."""
    return str(Identity.generate())


def read_identity(identity: str) -> Identity:
    """Return an identity for use.

    Raises:
        ValueError: it is none; the message does not repeat it.
    """
    try:
        return Identity.from_str(identity.strip())
    except IdentityError:
        raise ValueError("is no secret key of age, AGE-SECRET-KEY-1...") from None


def recipient_of(identity: str) -> str:
    """Return the public key of an identity: ``age1...``.

    Raises:
        ValueError: it is none; the message does not repeat it.
    """
    return str(read_identity(identity).to_public())


def check_recipient(recipient: str) -> Recipient:
    """Return a recipient for use.

    Raises:
        ValueError: files cannot be encrypted to it.
    """
    try:
        return Recipient.from_str(recipient)
    except RecipientError:
        raise ValueError("is no public key of age, age1..., or a character of it was changed") from None
