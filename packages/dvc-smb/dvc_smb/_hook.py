"""Tells DVC about ``smb://``. ``dvc_smb.pth`` makes every interpreter of the environment import this when it starts.

DVC has two tables, of filesystems and of the options of remotes, and no way to add to them from outside
(treeverse/dvc#10994 would bring entry points). So this waits until DVC loads the modules with the tables, and adds a
row to each. A process that never imports DVC pays for one dictionary lookup an import.

Nothing but ``sys`` is imported here, and nothing here may stop an interpreter from starting: an error becomes a warning
at the moment when DVC is used.
"""

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.abc import Loader
    from importlib.machinery import ModuleSpec
    from types import ModuleType

SCHEME = "smb"


def _add_filesystem(module: "ModuleType") -> None:
    module.known_implementations.setdefault(
        SCHEME,
        {"class": "dvc_smb.SMBFileSystem", "err": "dvc-smb is not complete: pip install --force-reinstall dvc-smb"},
    )


def _add_options(module: "ModuleType") -> None:
    from dvc_smb.dvc_schema import schema

    if SCHEME in module.REMOTE_SCHEMAS:
        return
    module.REMOTE_SCHEMAS[SCHEME] = schema(module.REMOTE_COMMON)
    # ByUrl copies the table when it is called, and the whole schema is compiled once for a process.
    module.SCHEMA["remote"][str] = module.ByUrl(module.REMOTE_SCHEMAS)
    config = sys.modules.get("dvc.config")
    if config is not None and hasattr(config, "get_compiled_schema"):
        config.get_compiled_schema.memory.clear()


ROWS = {"dvc_objects.fs": _add_filesystem, "dvc.config_schema": _add_options}


def _add(name: str, module: "ModuleType") -> None:
    try:
        ROWS[name](module)
    except Exception as error:
        import warnings

        warnings.warn(
            f"dvc-smb cannot add smb:// to this version of DVC ({name}: {type(error).__name__}: {error}): "
            "install the versions of dvc and dvc-smb that belong together",
            RuntimeWarning,
            stacklevel=2,
        )


class _Loader:
    """Loads a module as its own loader does, then adds the row. Leaves no trace in the module."""

    def __init__(self, loader: "Loader") -> None:
        self._loader = loader

    def create_module(self, spec: "ModuleSpec") -> "ModuleType | None":
        return self._loader.create_module(spec)

    def exec_module(self, module: "ModuleType") -> None:
        module.__loader__ = self._loader
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        self._loader.exec_module(module)
        _add(module.__name__, module)


class Finder:
    """Finds the two modules as the other finders do, with :class:`_Loader` around their loaders."""

    @staticmethod
    def find_spec(
        name: str, path: "Sequence[str] | None" = None, target: "ModuleType | None" = None
    ) -> "ModuleSpec | None":
        if name not in ROWS:
            return None
        for finder in sys.meta_path:
            if finder is Finder or not hasattr(finder, "find_spec"):
                continue
            spec = finder.find_spec(name, path, target)
            if spec is not None:
                if spec.loader is not None and hasattr(spec.loader, "exec_module"):
                    spec.loader = _Loader(spec.loader)  # type: ignore[assignment]
                return spec
        return None


def install() -> None:
    """Add the rows to what is loaded already, and wait for the rest. Calling it again changes nothing."""
    if Finder not in sys.meta_path:
        sys.meta_path.insert(0, Finder)
    for name in ROWS:
        if name in sys.modules:
            _add(name, sys.modules[name])


install()
