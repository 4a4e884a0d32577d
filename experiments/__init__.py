"""Recipes and the thin commands over them.

Importing the package hides TensorFlow's start-up notes, which would bury a command's own lines;
``TF_CPP_MIN_LOG_LEVEL=0`` shows them.
"""

import os
import sys
import tempfile
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import ModuleType


class _QuietLoader(SourceFileLoader):
    def exec_module(self, module: ModuleType) -> None:
        # TensorFlow writes from C++ to file descriptor 2, before it reads its log level.
        sys.stderr.flush()
        kept = os.dup(2)
        with tempfile.TemporaryFile() as notes:
            os.dup2(notes.fileno(), 2)
            try:
                super().exec_module(module)
            except BaseException:
                notes.seek(0)
                os.write(kept, notes.read())
                raise
            finally:
                os.dup2(kept, 2)
                os.close(kept)


class _KerasFinder:
    @staticmethod
    def find_spec(
        name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        spec = PathFinder.find_spec(name, path, target) if name == "keras" else None
        if spec is not None and isinstance(spec.loader, SourceFileLoader):
            spec.loader = _QuietLoader(spec.loader.name, spec.loader.path)
        return spec


# Keras, which imports TensorFlow, is loaded when a command needs it, and not for its --help.
if os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3") != "0":
    sys.meta_path.insert(0, _KerasFinder)
