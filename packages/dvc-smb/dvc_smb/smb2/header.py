"""The header before every message ([MS-SMB2] 2.2.1)."""

from __future__ import annotations

from struct import Struct

#: Mark, size, charge, status, command, credits, flags, next, message id, 0, tree, session, signature. In an answer
#: with the flag ASYNC an id of the server's stands for 0 and the tree.
HEADER = Struct("<4sHHIHHIIQIIQ16s")
MARK = b"\xfeSMB"
ANSWER, ASYNC, RELATED, SIGNED = 0x1, 0x2, 0x4, 0x8
