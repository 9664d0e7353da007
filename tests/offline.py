"""A program that dies at the first socket it asks for, and quantal's commands run in it.

On Linux the kernel watches (seccomp): native code, threads and child processes are seen too, and
io_uring, by which sockets could be had unseen, is forbidden as well. Elsewhere Python watches
itself, and sees neither native code nor child processes.
"""

from __future__ import annotations

import ctypes
import json
import os
import platform
import struct
import sys
import time
from typing import Any

DIED = 97  # exit code where Python saw it
_AUDITED = ("socket.__new__", "socket.connect", "socket.getaddrinfo", "socket.sendto")

# Number of the call `socket`, and of the architecture to which it belongs.
_NUMBERS = {"x86_64": (41, 0xC000003E), "aarch64": (198, 0xC00000B7)}
_IO_URING_SETUP = 425
_ARCHITECTURE, _NUMBER = 4, 0  # where they lie in what the kernel hands to a filter
_LOAD, _IF_EQUAL, _RETURN = 0x20, 0x15, 0x06
_KILL, _ALLOW = 0x80000000, 0x7FFF0000
_SET_NO_NEW_PRIVILEGES, _SET_SECCOMP, _FILTER = 38, 22, 2


def watched_by_kernel() -> bool:
    """Whether the kernel can watch here."""
    return sys.platform == "linux" and platform.machine() in _NUMBERS


def watch() -> None:
    """From now on the first socket ends this process, and each that it starts."""
    sys.addaudithook(_die)
    if watched_by_kernel():
        _let_kernel_watch(*_NUMBERS[platform.machine()])


def _die(event: str, _: Any) -> None:
    if event in _AUDITED:
        os._exit(DIED)


def _let_kernel_watch(socket: int, architecture: int) -> None:
    steps = [
        (_LOAD, 0, 0, _ARCHITECTURE),
        (_IF_EQUAL, 0, 4, architecture),  # another one: end
        (_LOAD, 0, 0, _NUMBER),
        (_IF_EQUAL, 2, 0, socket),
        (_IF_EQUAL, 1, 0, _IO_URING_SETUP),
        (_RETURN, 0, 0, _ALLOW),
        (_RETURN, 0, 0, _KILL),
    ]
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *step) for step in steps))
    program = struct.pack("@HP", len(steps), ctypes.addressof(code))
    libc = ctypes.CDLL(None, use_errno=True)
    for action in (
        (_SET_NO_NEW_PRIVILEGES, 1, 0, 0, 0),
        (_SET_SECCOMP, _FILTER, ctypes.c_char_p(program), 0, 0),
    ):
        if libc.prctl(*action):
            raise OSError(ctypes.get_errno(), "the kernel does not watch here")


def native_socket() -> None:
    """Ask for a socket behind Python's back, as a library would; what must not survive."""
    ctypes.CDLL(None).socket(2, 1, 0)


def _load_runtime() -> None:
    """Load the default model as it is, and give what ONNX Runtime does beside it some time."""
    import onnxruntime

    from quantal.model import load_model

    onnxruntime.InferenceSession(str(load_model().graph), providers=["CPUExecutionProvider"])
    time.sleep(10)


def main() -> None:
    """Run commands (a JSON list of lists of words) one after the other, and say how each ended."""
    watch()
    if sys.argv[1] == "native":
        native_socket()
    elif sys.argv[1] == "python":
        import socket

        socket.create_connection(("127.0.0.1", 9))
    elif sys.argv[1] == "telemetry":
        _load_runtime()
    else:
        from quantal.cli import main as quantal

        codes = []
        for words in json.loads(sys.argv[1]):
            try:
                codes.append(quantal(words, prog_name="quantal", standalone_mode=False) or 0)
            except SystemExit as ended:
                codes.append(ended.code)
        sys.stdout.write(json.dumps(codes) + "\n")


if __name__ == "__main__":
    main()
