"""The errors that a user can cause and mend; each message says what came and what to do."""

from __future__ import annotations


class QuantalError(Exception):
    """Any error whose message is meant for the user rather than for the developer."""

    exit_code = 2  # of the command line


class UsageError(QuantalError, ValueError):
    """An argument is outside what is allowed."""


class ReadError(QuantalError):
    """A recording cannot be read, or does not hold what was asked of it."""

    exit_code = 3


class ModelError(QuantalError):
    """A model folder is missing, damaged, or does not fit the task."""


class MissingRuntimeError(QuantalError):
    """ONNX Runtime is not installed, is installed twice, or the device asked for is not there."""


class MissingLibraryError(QuantalError):
    """A format needs a library that is not installed."""


class SaveError(QuantalError):
    """A result cannot be written where it was asked for."""

    exit_code = 3


class TooLongError(SaveError):
    """A table has more rows than its format can hold."""
