"""What CRIU's errors mean to who has a container: its words, what they say of the container, and what to do about it.

Source: what CRIU 3.17 to 4.2 print; the file is named where the words alone would not be found.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final, NamedTuple


class Reason(NamedTuple):
    """Why CRIU cannot dump."""

    sentence: str
    """What is said of a process of the container."""
    hint: str


_URING_HINT = "`podman run --security-opt seccomp=PROFILE` can forbid io_uring, programs have settings not to use it"
_ROWS: Final = tuple(
    (re.compile(words, re.DOTALL), sentence, hint)
    for words, sentence, hint in (
        # The number is the mode of the file that is mapped, and differs from kernel to kernel (criu/proc_parse.c).
        (
            r"Unknown shit \d+ \(anon_inode:\[io_uring\]\)",
            "one of its processes uses io_uring, of which CRIU knows nothing",
            _URING_HINT,
        ),
        (r"Unknown shit \d+ \((.+)\)", "one of its processes has {} in its memory, of which CRIU knows nothing", ""),
        # Since Linux 6.7 no descriptor of io_uring can be handed to another process (net/core/scm.c).
        (
            r"send_fds failed \(-22\)",
            "one of its processes has something open that nobody else can be given, as io_uring is",
            _URING_HINT,
        ),
        # criu/fsnotify.c: on overlay the kernel names a watched file by a handle that nobody can open.
        (
            r"Can't dump that handle",
            "one of its processes watches a file or directory (inotify), of which CRIU does not find the name",
            "`irmap-scan-path /DIRECTORY` in /etc/criu/{runtime}.conf has CRIU look for it in that of the container",
        ),
        (
            r"Can't dump ghost file (.+) of (\d+) size",
            "one of its processes has {} open, which is deleted, and its {} bytes are more than CRIU is to save",
            "ocickpt has it save up to 63 MiB, unless `ghost-limit` in /etc/criu/{runtime}.conf says less; a process"
            " that has more has to close it first",
        ),
        (
            r"Can't create link remap for (.+?)\. Use link-remap",
            "one of its processes has {} open, which is deleted and has another name still (a hard link)",
            "the process has to close it first",
        ),
        (
            r"(?:zombie (\d+) \(comm (.*?)\) found while seizing|Unseizable non-zombie (\d+) found)",
            "process {} cannot be stopped for the dump, as when a debugger or strace traces it",
            "end what traces it: TracerPid in /proc/PID/status names that",
        ),
        (
            r"Connected TCP socket|TCP_REPAIR",
            "it has established TCP connections",
            "use --tcp-established, which keeps them",
        ),
        (r"[Ff]ile locks are hold", "it holds file locks", "use --file-locks, which keeps them"),
        (
            r"External socket is used",
            "one of its processes is connected to a unix socket of somebody outside (syslog, D-Bus, a service)",
            "the connection has to be closed first",
        ),
        (
            r"Can't dump file \d+ of that type \[\d+\] \(\S+ (.+)\)",
            "one of its processes has {} open, which CRIU cannot save",
            "",
        ),
        (r"Nested mount namespaces are not supported", "it has containers or mount namespaces inside", ""),
    )
)


def explain(errors: Iterable[str], runtime: str) -> Reason | None:
    """What the errors of a log of CRIU's mean, as it dumped for that runtime; None where nothing here says it."""
    given = list(errors)
    for words, sentence, hint in _ROWS:
        for error in given:
            if found := words.search(error):
                answers = [each for each in found.groups() if each]
                return Reason(sentence.format(*answers), hint.format(runtime=runtime))
    return None
