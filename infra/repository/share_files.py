"""Files of ours in the share that are not DVC's: through the folder, or through ``dvc_smb`` without a mount."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from infra.repository.share import Share


@dataclass(frozen=True)
class ShareFiles:
    """An fsspec filesystem, and the folder there in which DVC's remote lies."""

    filesystem: Any
    root: str

    def put_folder(self, folder: Path, name: str) -> None:
        """Copy a folder with all that is in it to ``name`` below the root.

        Raises:
            OSError: the share cannot be written.
        """
        for path in sorted(item for item in folder.rglob("*") if item.is_file()):
            target = f"{self.root}/{name}/{path.relative_to(folder).as_posix()}"
            self.filesystem.makedirs(target.rpartition("/")[0], exist_ok=True)
            self.filesystem.put_file(str(path), target)


def open_files(share: Share) -> ShareFiles | None:
    """Return the files of a share that is a folder or Samba; None for other remotes of DVC, set by hand."""
    url = str(share.settings.get("url", ""))
    if url.startswith("smb://"):
        from dvc_smb.credentials import complete
        from dvc_smb.filesystem import SMB
        from dvc_smb.location import strip
        from dvc_smb.options import Options

        settings = share.settings
        named = SMB._get_kwargs_from_urls(url) | {
            name: settings[name] for name in ("user", "domain") if name in settings
        }
        if "encrypt" in settings:
            named["encrypt"] = settings["encrypt"] == "true"
        options = complete(Options(**named), environment=share.environment)
        return ShareFiles(SMB(**asdict(options), skip_instance_cache=True), strip(url))
    if url.startswith("/"):
        from fsspec.implementations.local import LocalFileSystem

        return ShareFiles(LocalFileSystem(), url)
    return None
