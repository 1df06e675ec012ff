"""Samba and Windows shares for DVC and fsspec: ``smb://user@host/share/folder``.

Importing this costs next to nothing: every interpreter of the environment does it when it starts (``dvc_smb.pth``).
"""

__version__ = "0.1.0"
__all__ = ["SMB", "Options", "SMBFileSystem", "__version__", "register"]

TYPE_CHECKING = False  # typing takes longer to import than all of this
if TYPE_CHECKING:
    from dvc_smb.dvc_filesystem import SMBFileSystem
    from dvc_smb.filesystem import SMB
    from dvc_smb.options import Options

_WHERE = {"SMB": "filesystem", "Options": "options", "SMBFileSystem": "dvc_filesystem"}


def __getattr__(name: str) -> object:
    if name not in _WHERE:
        raise AttributeError(f"module 'dvc_smb' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"dvc_smb.{_WHERE[name]}"), name)


def register() -> None:
    """Make ``smb://`` mean this package for all of fsspec in this process.

    fsspec has an ``smb`` of its own, so this is for the program to decide, not for an installed package. DVC's remotes
    do not need it.
    """
    import fsspec

    from dvc_smb.filesystem import SMB

    fsspec.register_implementation("smb", SMB, clobber=True)
