"""Keys as text, with a checksum that finds slips of the pen: Bech32. Source: BIP 173, without its limit of length."""

from __future__ import annotations

_ALPHABET = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
_GENERATOR = (0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)
_CHECKSUM = 6


def encode(prefix: str, data: bytes) -> str:
    """Return ``data`` as text, in lower case."""
    values = _regroup(data, 8, 5, pad=True)
    remainder = _polymod([*_spread(prefix), *values, *[0] * _CHECKSUM]) ^ 1
    checksum = [(remainder >> 5 * (_CHECKSUM - 1 - index)) & 31 for index in range(_CHECKSUM)]
    return f"{prefix}1{''.join(_ALPHABET[value] for value in [*values, *checksum])}"


def decode(prefix: str, text: str) -> bytes:
    """Return the bytes of a text with this prefix; all of it in lower case or all in upper case.

    Raises:
        ValueError: it is none; the message does not repeat it.
    """
    lower = text.lower()
    found, _, rest = lower.rpartition("1")
    known = text in (lower, text.upper()) and found == prefix and len(rest) >= _CHECKSUM
    if not known or set(rest) - set(_ALPHABET):
        raise ValueError(f"does not begin with {prefix}1, or holds other characters")
    values = [_ALPHABET.index(character) for character in rest]
    if _polymod([*_spread(prefix), *values]) != 1:
        raise ValueError("its checksum is wrong: a character was changed")
    return bytes(_regroup(bytes(values[:-_CHECKSUM]), 5, 8, pad=False))


def _spread(prefix: str) -> list[int]:
    return [*(ord(character) >> 5 for character in prefix), 0, *(ord(character) & 31 for character in prefix)]


def _polymod(values: list[int]) -> int:
    remainder = 1
    for value in values:
        top = remainder >> 25
        remainder = (remainder & 0x1FFFFFF) << 5 ^ value
        for index, word in enumerate(_GENERATOR):
            remainder ^= word if top >> index & 1 else 0
    return remainder


def _regroup(data: bytes, size: int, wanted: int, *, pad: bool) -> list[int]:
    """Return the same bits in groups of ``wanted`` instead of ``size``."""
    number, bits, groups = 0, 0, []
    for value in data:
        number, bits = number << size | value, bits + size
        while bits >= wanted:
            bits -= wanted
            groups.append(number >> bits & (1 << wanted) - 1)
        number &= (1 << bits) - 1
    if pad and bits:
        groups.append(number << wanted - bits)
    elif not pad and (bits >= size or number):
        raise ValueError("has too many bits")
    return groups
