"""What a renderer process may do: the limits of the system, and a filter of system calls.

A renderer decodes files of unknown origin. An attacker who takes it over has no network, opens no
file and starts no program (seccomp(2), Linux on x86-64 and arm64).
"""

import ctypes
import platform
import resource
import signal
import struct
import sys
from collections.abc import Sequence

_PR_SET_PDEATHSIG, _PR_SET_SECCOMP, _PR_SET_DUMPABLE, _PR_SET_NO_NEW_PRIVS = 1, 22, 4, 38
_SECCOMP_MODE_FILTER = 2

_LOAD, _JUMP_IF_EQUAL, _JUMP_IF_GREATER_OR_EQUAL, _RETURN = 0x20, 0x15, 0x35, 0x06
"""Codes of classic BPF (linux/bpf_common.h): word at an absolute offset, two jumps, return."""

_ALLOW, _DENY = 0x7FFF0000, 0x00050001
"""SECCOMP_RET_ALLOW; SECCOMP_RET_ERRNO with EPERM."""

_NUMBER_OFFSET, _ARCHITECTURE_OFFSET = 0, 4
"""Of the system call and its architecture in `struct seccomp_data`, in bytes."""

_X32_BIT = 0x40000000
"""Numbers from here on are calls of another ABI on x86-64, which would pass the list."""

_AUDIT_ARCHITECTURE = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}

_DENIED = {
    "x86_64": (
        # open, creat, openat, openat2, open_by_handle_at, truncate
        *(2, 85, 257, 437, 304, 76),
        # rename, mkdir, rmdir, link, unlink, symlink, chmod, chown, lchown and their *at forms
        *(82, 83, 84, 86, 87, 88, 90, 92, 94, 258, 260, 263, 264, 265, 266, 268, 316),
        # socket, connect, accept, bind, listen, accept4
        *(41, 42, 43, 49, 50, 288),
        # execve, execveat, ptrace, process_vm_readv, process_vm_writev, kill, tkill
        *(59, 322, 101, 310, 311, 62, 200),
        # pidfd_open, pidfd_send_signal, pidfd_getfd, io_uring_setup, bpf, perf_event_open,
        # memfd_create, mount, unshare, setns, userfaultfd, keyctl
        *(434, 424, 438, 425, 321, 298, 319, 165, 272, 308, 323, 250),
    ),
    "aarch64": (
        *(56, 437, 265, 45),
        *(33, 34, 35, 36, 37, 38, 53, 54, 276),
        *(198, 203, 202, 200, 201, 242),
        *(221, 281, 117, 270, 271, 129, 130),
        *(434, 424, 438, 425, 280, 241, 279, 40, 97, 268, 282, 219),
    ),
}
"""Numbers of the system calls that are refused, in the same order for both architectures."""


def limit_resources(*, memory_bytes: int) -> None:
    """Limit what this process may take of the machine.

    Args:
        memory_bytes: Largest address space, in bytes.
    """
    _lower(resource.RLIMIT_AS, memory_bytes)
    _lower(resource.RLIMIT_CORE, 0)
    _lower(resource.RLIMIT_FSIZE, 0)


def limit_processor_time(seconds: float) -> None:
    """Let the system end this process after so many more seconds of processor time.

    Args:
        seconds: From now on; rounded up.
    """
    used = resource.getrusage(resource.RUSAGE_SELF)
    soft = int(used.ru_utime + used.ru_stime + seconds) + 1
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (soft, hard))


def die_with_parent() -> None:
    """Let Linux kill this process when its parent ends (prctl(2))."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, ctypes.c_ulong(signal.SIGKILL))


def filter_system_calls() -> bool:
    """Refuse files, network, programs and other processes to this process, irrevocably.

    Returns:
        False where the system has no such filter; then only the limits hold.
    """
    machine = platform.machine()
    if sys.platform != "linux" or machine not in _DENIED:
        return False
    program = _program(_AUDIT_ARCHITECTURE[machine], _DENIED[machine])
    buffer = ctypes.create_string_buffer(program, len(program))
    # struct sock_fprog: the number of instructions and where they are.
    head = struct.pack("@HP", len(program) // 8, ctypes.addressof(buffer))
    libc = ctypes.CDLL(None, use_errno=True)
    long = ctypes.c_ulong
    # Without a core and closed to other processes of this user.
    libc.prctl(_PR_SET_DUMPABLE, long(0), long(0), long(0), long(0))
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, long(1), long(0), long(0), long(0)) != 0:
        return False
    return bool(
        libc.prctl(_PR_SET_SECCOMP, long(_SECCOMP_MODE_FILTER), head, long(0), long(0)) == 0
    )


def _program(architecture: int, denied: Sequence[int]) -> bytes:
    """Compose the filter: another architecture and what is listed is denied, the rest allowed."""
    count = len(denied)
    code = [
        _instruction(_LOAD, 0, 0, _ARCHITECTURE_OFFSET),
        # The last instruction denies: it stands `count + 3` after this one.
        _instruction(_JUMP_IF_EQUAL, 0, count + 3, architecture),
        _instruction(_LOAD, 0, 0, _NUMBER_OFFSET),
        _instruction(_JUMP_IF_GREATER_OR_EQUAL, count + 1, 0, _X32_BIT),
        *(
            _instruction(_JUMP_IF_EQUAL, count - place, 0, number)
            for place, number in enumerate(denied)
        ),
        _instruction(_RETURN, 0, 0, _ALLOW),
        _instruction(_RETURN, 0, 0, _DENY),
    ]
    return b"".join(code)


def _instruction(code: int, if_true: int, if_false: int, value: int) -> bytes:
    return struct.pack("@HBBI", code, if_true, if_false, value)


def _lower(limit: int, value: int) -> None:
    _, hard = resource.getrlimit(limit)
    if hard != resource.RLIM_INFINITY:
        value = min(value, hard)
    resource.setrlimit(limit, (value, value))
