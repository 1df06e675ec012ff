"""SMB 2 and 3 over asyncio: what a file transfer needs of [MS-SMB2], and nothing of fsspec or DVC.

``login`` opens and authenticates a socket, ``connection`` moves requests over it, ``pool`` keeps a few connections,
``messages`` builds requests and reads answers, ``status`` turns an NTSTATUS into a Python error.
"""
