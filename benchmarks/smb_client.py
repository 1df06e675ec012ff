"""One bare transfer of a tree by an fsspec filesystem, as a command: ours, or fsspec's own ``smb``.

SMB_PASSWORD=... python -m benchmarks.smb_client ours get PORT USER /sambashare/images /tmp/images
"""

from __future__ import annotations

import os
import sys


def main() -> None:
    """Copy one tree."""
    client, action, port, user, remote, local = sys.argv[1:]
    login = {"host": "127.0.0.1", "port": int(port), "password": os.environ["SMB_PASSWORD"]}
    if client == "ours":
        from dvc_smb.filesystem import SMB

        filesystem = SMB(user=user, **login)
    else:
        from fsspec.implementations.smb import SMBFileSystem

        filesystem = SMBFileSystem(username=user, auto_mkdir=True, **login)
    # A trailing slash: the folder's content, not the folder.
    if action == "get":
        filesystem.get(remote + "/", local + "/", recursive=True)
    else:
        filesystem.put(local + "/", remote + "/", recursive=True)


if __name__ == "__main__":
    main()
