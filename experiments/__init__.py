"""Recipes and the thin commands over them.

Importing the package imports Keras without TensorFlow's start-up notes, which no setting turns
off and which would bury a command's own lines.
"""

import os
import sys
import tempfile


def _import_keras_quietly() -> None:
    # TensorFlow writes from C++ to file descriptor 2 before its log level is read. What it wrote
    # is shown after all where the import fails.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as notes:
        os.dup2(notes.fileno(), 2)
        try:
            import keras  # noqa: F401
        except BaseException:
            notes.seek(0)
            os.write(kept, notes.read())
            raise
        finally:
            os.dup2(kept, 2)
            os.close(kept)


_import_keras_quietly()
