"""NTSTATUS values ([MS-ERREF] 2.3) and the Python errors that they mean."""

from __future__ import annotations

import errno

from dvc_smb.smb2.errors import Busy, Disconnected

SUCCESS = 0x00000000
PENDING = 0x00000103
BUFFER_OVERFLOW = 0x80000005
NO_MORE_FILES = 0x80000006
INVALID_PARAMETER = 0xC000000D
NO_SUCH_FILE = 0xC000000F
INVALID_DEVICE_REQUEST = 0xC0000010
END_OF_FILE = 0xC0000011
MORE_PROCESSING_REQUIRED = 0xC0000016
ACCESS_DENIED = 0xC0000022
OBJECT_NAME_NOT_FOUND = 0xC0000034
OBJECT_NAME_COLLISION = 0xC0000035
OBJECT_PATH_NOT_FOUND = 0xC000003A
NOT_SUPPORTED = 0xC00000BB
BAD_NETWORK_NAME = 0xC00000CC
NOT_A_DIRECTORY = 0xC0000103
FILE_CLOSED = 0xC0000128

#: The session or the share's connection is gone: log in again and repeat.
SESSION_GONE = frozenset({0xC00000C9, 0xC000035C, 0xC0000203})

NAMES = {
    SUCCESS: "STATUS_SUCCESS",
    PENDING: "STATUS_PENDING",
    BUFFER_OVERFLOW: "STATUS_BUFFER_OVERFLOW",
    NO_MORE_FILES: "STATUS_NO_MORE_FILES",
    0x8000002D: "STATUS_STOPPED_ON_SYMLINK",
    0xC0000001: "STATUS_UNSUCCESSFUL",
    0xC0000002: "STATUS_NOT_IMPLEMENTED",
    0xC0000003: "STATUS_INVALID_INFO_CLASS",
    0xC0000004: "STATUS_INFO_LENGTH_MISMATCH",
    0xC0000008: "STATUS_INVALID_HANDLE",
    INVALID_PARAMETER: "STATUS_INVALID_PARAMETER",
    0xC000000E: "STATUS_NO_SUCH_DEVICE",
    NO_SUCH_FILE: "STATUS_NO_SUCH_FILE",
    INVALID_DEVICE_REQUEST: "STATUS_INVALID_DEVICE_REQUEST",
    END_OF_FILE: "STATUS_END_OF_FILE",
    0xC0000013: "STATUS_NO_MEDIA_IN_DEVICE",
    MORE_PROCESSING_REQUIRED: "STATUS_MORE_PROCESSING_REQUIRED",
    0xC0000017: "STATUS_NO_MEMORY",
    ACCESS_DENIED: "STATUS_ACCESS_DENIED",
    0xC0000023: "STATUS_BUFFER_TOO_SMALL",
    0xC0000032: "STATUS_DISK_CORRUPT_ERROR",
    0xC0000033: "STATUS_OBJECT_NAME_INVALID",
    OBJECT_NAME_NOT_FOUND: "STATUS_OBJECT_NAME_NOT_FOUND",
    OBJECT_NAME_COLLISION: "STATUS_OBJECT_NAME_COLLISION",
    0xC0000039: "STATUS_OBJECT_PATH_INVALID",
    OBJECT_PATH_NOT_FOUND: "STATUS_OBJECT_PATH_NOT_FOUND",
    0xC000003B: "STATUS_OBJECT_PATH_SYNTAX_BAD",
    0xC000003E: "STATUS_DATA_ERROR",
    0xC000003F: "STATUS_CRC_ERROR",
    0xC0000043: "STATUS_SHARING_VIOLATION",
    0xC0000044: "STATUS_QUOTA_EXCEEDED",
    0xC0000054: "STATUS_FILE_LOCK_CONFLICT",
    0xC0000055: "STATUS_LOCK_NOT_GRANTED",
    0xC0000056: "STATUS_DELETE_PENDING",
    0xC000005E: "STATUS_NO_LOGON_SERVERS",
    0xC0000061: "STATUS_PRIVILEGE_NOT_HELD",
    0xC0000064: "STATUS_NO_SUCH_USER",
    0xC000006A: "STATUS_WRONG_PASSWORD",
    0xC000006D: "STATUS_LOGON_FAILURE",
    0xC000006E: "STATUS_ACCOUNT_RESTRICTION",
    0xC000006F: "STATUS_INVALID_LOGON_HOURS",
    0xC0000070: "STATUS_INVALID_WORKSTATION",
    0xC0000071: "STATUS_PASSWORD_EXPIRED",
    0xC0000072: "STATUS_ACCOUNT_DISABLED",
    0xC000007F: "STATUS_DISK_FULL",
    0xC0000097: "STATUS_TOO_MANY_PAGING_FILES",
    0xC000009A: "STATUS_INSUFFICIENT_RESOURCES",
    0xC000009D: "STATUS_DEVICE_NOT_CONNECTED",
    0xC00000A2: "STATUS_MEDIA_WRITE_PROTECTED",
    0xC00000A3: "STATUS_DEVICE_NOT_READY",
    0xC00000B5: "STATUS_IO_TIMEOUT",
    0xC00000BA: "STATUS_FILE_IS_A_DIRECTORY",
    NOT_SUPPORTED: "STATUS_NOT_SUPPORTED",
    0xC00000C9: "STATUS_NETWORK_NAME_DELETED",
    0xC00000CA: "STATUS_NETWORK_ACCESS_DENIED",
    BAD_NETWORK_NAME: "STATUS_BAD_NETWORK_NAME",
    0xC00000D0: "STATUS_REQUEST_NOT_ACCEPTED",
    0xC00000D4: "STATUS_NOT_SAME_DEVICE",
    0xC00000D5: "STATUS_FILE_RENAMED",
    0xC00000DF: "STATUS_NO_SUCH_DOMAIN",
    0xC00000E5: "STATUS_INTERNAL_ERROR",
    0xC00000E9: "STATUS_UNEXPECTED_IO_ERROR",
    0xC0000101: "STATUS_DIRECTORY_NOT_EMPTY",
    0xC0000102: "STATUS_FILE_CORRUPT_ERROR",
    NOT_A_DIRECTORY: "STATUS_NOT_A_DIRECTORY",
    0xC0000106: "STATUS_NAME_TOO_LONG",
    0xC000011F: "STATUS_TOO_MANY_OPENED_FILES",
    0xC0000120: "STATUS_CANCELLED",
    0xC0000121: "STATUS_CANNOT_DELETE",
    FILE_CLOSED: "STATUS_FILE_CLOSED",
    0xC000012D: "STATUS_COMMITMENT_LIMIT",
    0xC0000133: "STATUS_TIME_DIFFERENCE_AT_DC",
    0xC000015B: "STATUS_LOGON_TYPE_NOT_GRANTED",
    0xC0000185: "STATUS_IO_DEVICE_ERROR",
    0xC000018B: "STATUS_NO_TRUST_SAM_ACCOUNT",
    0xC000018D: "STATUS_TRUSTED_RELATIONSHIP_FAILURE",
    0xC0000192: "STATUS_NETLOGON_NOT_STARTED",
    0xC0000193: "STATUS_ACCOUNT_EXPIRED",
    0xC0000199: "STATUS_NOLOGON_WORKSTATION_TRUST_ACCOUNT",
    0xC0000203: "STATUS_USER_SESSION_DELETED",
    0xC0000205: "STATUS_INSUFF_SERVER_RESOURCES",
    0xC0000224: "STATUS_PASSWORD_MUST_CHANGE",
    0xC0000225: "STATUS_NOT_FOUND",
    0xC0000233: "STATUS_DOMAIN_CONTROLLER_NOT_FOUND",
    0xC0000234: "STATUS_ACCOUNT_LOCKED_OUT",
    0xC0000257: "STATUS_PATH_NOT_COVERED",
    0xC0000265: "STATUS_TOO_MANY_LINKS",
    0xC000026D: "STATUS_DFS_UNAVAILABLE",
    0xC0000279: "STATUS_IO_REPARSE_TAG_NOT_HANDLED",
    0xC000035C: "STATUS_NETWORK_SESSION_EXPIRED",
    0xC0000388: "STATUS_DOWNGRADE_DETECTED",
    0xC0000412: "STATUS_SMB_BAD_CLUSTER_DIALECT",
    0xC0000413: "STATUS_AUTHENTICATION_FIREWALL_FAILED",
    0xC0000466: "STATUS_SERVER_UNAVAILABLE",
    0xC0000467: "STATUS_FILE_NOT_AVAILABLE",
    0xC0000480: "STATUS_SHARE_UNAVAILABLE",
}

_MISSING = (errno.ENOENT, "no such file or directory on the share")
_DENIED = (errno.EACCES, "the share's rights do not allow this: ask its administrator for the right")
_BUSY = (errno.EBUSY, "another client uses the file: wait until it has closed it")
_INVALID = (errno.EINVAL, "the server does not accept this name: rename the file")
_BROKEN = (errno.EIO, "the server could not read or write its disk: ask its administrator")

_ERRORS = {
    NO_SUCH_FILE: _MISSING,
    OBJECT_NAME_NOT_FOUND: _MISSING,
    OBJECT_PATH_NOT_FOUND: _MISSING,
    0xC000000E: _MISSING,
    0xC0000225: _MISSING,
    OBJECT_NAME_COLLISION: (errno.EEXIST, "it exists already"),
    ACCESS_DENIED: _DENIED,
    0xC0000061: _DENIED,
    0xC00000CA: _DENIED,
    0xC0000121: (errno.EACCES, "the server does not let it be deleted: it may be read-only"),
    0xC000007F: (errno.ENOSPC, "the share is full: remove files, or ask its administrator for space"),
    0xC0000044: (errno.EDQUOT, "the quota on the share is used up: remove files, or ask its administrator for more"),
    0xC00000A2: (errno.EROFS, "the share is read-only: ask its administrator for the right to write"),
    0xC0000043: _BUSY,
    0xC0000054: _BUSY,
    0xC0000055: _BUSY,
    0xC0000056: (errno.EBUSY, "another client is deleting the file: try again when it is gone"),
    0xC0000101: (errno.ENOTEMPTY, "the directory is not empty"),
    0xC00000BA: (errno.EISDIR, "it is a directory"),
    NOT_A_DIRECTORY: (errno.ENOTDIR, "it is not a directory"),
    0xC0000106: (errno.ENAMETOOLONG, "the name is too long for the server: shorten it"),
    0xC0000033: _INVALID,
    0xC0000039: _INVALID,
    0xC000003B: _INVALID,
    0xC00000D4: (errno.EXDEV, "source and target lie on different file systems of the server"),
    0xC0000265: (errno.EMLINK, "the file has too many links"),
    0xC000011F: (errno.EMFILE, "the server lets this user open no more files: close some, or lower the jobs"),
    0xC0000008: (errno.EBADF, "the file is no longer open on the server"),
    FILE_CLOSED: (errno.EBADF, "the file is no longer open on the server"),
    0xC0000120: (errno.ECANCELED, "the server has cancelled the request"),
    0xC0000002: (errno.EOPNOTSUPP, "the server cannot do this"),
    INVALID_DEVICE_REQUEST: (errno.EOPNOTSUPP, "the server cannot do this"),
    NOT_SUPPORTED: (errno.EOPNOTSUPP, "the server cannot do this"),
    0x8000002D: (errno.ELOOP, "it lies behind a symbolic link that leads off the share: name the link's target"),
    0xC0000257: (errno.EREMOTE, "it lies on another server, to which DFS refers: name that server in the URL"),
    0xC000003E: _BROKEN,
    0xC000003F: _BROKEN,
    0xC0000032: _BROKEN,
    0xC0000102: _BROKEN,
    0xC0000185: _BROKEN,
    0xC00000E9: _BROKEN,
}

# The same request may pass a little later.
_BUSY_SERVER = frozenset({0xC0000017, 0xC000009A, 0xC00000B5, 0xC00000D0, 0xC0000205, 0xC000012D, 0xC0000466})


def name(status: int) -> str:
    """Return the name of an NTSTATUS, or its number."""
    return NAMES.get(status, f"NTSTATUS 0x{status:08x}")


def os_error(status: int, path: str) -> OSError:
    """Return the error that ``status`` means for ``path``: the OSError subclass of its errno, EIO for one unknown.

    What may pass when repeated is a ``ConnectionError``: :class:`Disconnected` after a new login, :class:`Busy` later.
    """
    if status in SESSION_GONE:
        return Disconnected(f"the server has ended the session ({name(status)}) that used {path}")
    if status in _BUSY_SERVER:
        return Busy(f"the server is too busy for {path} ({name(status)}): try again, with fewer jobs")
    if status in _ERRORS:
        return OSError(*_ERRORS[status], path)
    return OSError(errno.EIO, f"the server refuses with {name(status)}", path)
