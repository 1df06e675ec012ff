"""Tells DVC about ``smb://``. Every interpreter of the environment imports this when it starts, through ``dvc_smb.pth``.

DVC has two tables, of filesystems and of the options of remotes, and no way to add to them from outside
(treeverse/dvc#10994 would bring entry points). So this waits until DVC loads the modules with the tables, and adds a
row to each. A process that never imports DVC pays for one dictionary lookup an import.

Nothing but ``sys`` is imported here, and nothing here may stop an interpreter from starting: an error becomes a warning
at the moment when DVC is used.
"""

import sys

SCHEME = "smb"


def _add_filesystem(module):  # type: ignore[no-untyped-def]
    module.known_implementations.setdefault(
        SCHEME,
        {"class": "dvc_smb.SMBFileSystem", "err": "smb is supported, but requires 'dvc-smb' to be installed"},
    )


def _add_options(module):  # type: ignore[no-untyped-def]
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


def _add(name, module):  # type: ignore[no-untyped-def]
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

    def __init__(self, loader):  # type: ignore[no-untyped-def]
        self._loader = loader

    def create_module(self, spec):  # type: ignore[no-untyped-def]
        return self._loader.create_module(spec)

    def exec_module(self, module):  # type: ignore[no-untyped-def]
        module.__spec__.loader = module.__loader__ = self._loader
        self._loader.exec_module(module)
        _add(module.__name__, module)


class Finder:
    """Finds the two modules as the other finders do, with :class:`_Loader` around their loaders."""

    @staticmethod
    def find_spec(name, path=None, target=None):  # type: ignore[no-untyped-def]
        if name not in ROWS:
            return None
        for finder in sys.meta_path:
            if finder is Finder or not hasattr(finder, "find_spec"):
                continue
            spec = finder.find_spec(name, path, target)
            if spec is not None:
                if hasattr(spec.loader, "exec_module"):
                    spec.loader = _Loader(spec.loader)
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
