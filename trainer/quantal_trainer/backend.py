"""The only import of TensorFlow, Keras and tf2onnx: quiet, and clear about what is missing."""

from __future__ import annotations

import logging
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

import quantal  # noqa: F401  (silences ONNX Runtime's telemetry before anything can import it)
from quantal.errors import MissingRuntimeError

_LEVEL = "TF_CPP_MIN_LOG_LEVEL"
_INSTALL = "python -m pip install tensorflow keras tf2onnx onnx"

os.environ.setdefault(_LEVEL, "3")  # read once, when TensorFlow is first imported
if "keras" not in sys.modules:
    os.environ["KERAS_BACKEND"] = "tensorflow"


@contextmanager
def _hushed() -> Iterator[None]:
    """Keep TensorFlow's start-up notices off stderr; TF_CPP_MIN_LOG_LEVEL=0 shows them.

    Native code writes them before it reads any log level, so only the file descriptor helps.
    """
    try:
        stderr = os.dup(2) if os.environ[_LEVEL] == "3" else None
    except OSError:  # a program without a stderr
        stderr = None
    if stderr is None:
        yield
        return
    with tempfile.TemporaryFile() as notices:
        os.dup2(notices.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)


try:
    with _hushed():
        import tensorflow as tf

        tf.config.list_physical_devices()  # the first look at the devices prints notices too

        import keras
        import onnx
        import tf2onnx
except ModuleNotFoundError as error:
    raise MissingRuntimeError(
        f"training, import and export of networks need {error.name}, which is not installed: "
        f"type  {_INSTALL}"
    ) from None
except ImportError as error:
    raise MissingRuntimeError(
        f"TensorFlow is installed but does not load ({error}); type  {_INSTALL} --force-reinstall  "
        "and, on Windows, install the Microsoft Visual C++ Redistributable."
    ) from None

if keras.backend.backend() != "tensorflow":
    raise MissingRuntimeError(
        f"Keras was started with the backend {keras.backend.backend()!r}; quantal trains with "
        "TensorFlow: set KERAS_BACKEND=tensorflow before Keras is imported."
    )

if not tf.config.list_physical_devices("GPU"):  # there, some layers have no such kernels
    tf.config.experimental.enable_op_determinism()  # the same seed gives the same weights

tf.get_logger().setLevel(logging.ERROR)
logging.getLogger("tf2onnx").setLevel(logging.ERROR)

__all__ = ["keras", "onnx", "tf", "tf2onnx"]
