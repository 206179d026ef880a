"""What people reported of checkpoints and restores of containers, a row each; test_reports.py plays them.

A new row is a `program`, which makes something, calls `moved()` and asserts that it is still there (it is Python, run
as the container's first process, with the names of programs/witness.py), or a `shell`: what is done inside before, and
what must be seen after.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent

_WITNESS = (Path(__file__).parent / "programs" / "witness.py").read_text()
_READY = """
    until test -e /tmp/ready -o -e /tmp/told; do sleep 0.05; done
    test -e /tmp/ready || { cat /tmp/told; exit 1; }
"""
_TOLD = """
    touch /tmp/look
    until test -e /tmp/told; do sleep 0.05; done
    cat /tmp/told
    grep -qx good /tmp/told
"""


@dataclass(frozen=True)
class Report:
    """One of them."""

    source: str
    """Where it is told: the project, and the number of the issue or pull request there."""
    name: str
    run: tuple[str, ...]
    """The words after `podman run`."""
    inside: str
    """Shell, run in the container before it is checkpointed."""
    seen: str
    """Shell, run in the container that was restored: exit code 0 is good."""
    checkpoint: tuple[str, ...] = ()
    """Options of `ocickpt checkpoint`."""
    restore: tuple[str, ...] = ()
    """Options of `ocickpt restore`."""
    moves: int = 1
    """How often it is checkpointed and restored, on the other host each time."""
    refused: str = ""
    """A part of the sentence with which `checkpoint` refuses; the container runs on, and is looked at where it is."""
    long: bool = False
    """It takes too long for an ordinary run."""


def program(
    source: str,
    name: str,
    text: str,
    options: str = "",
    *,
    checkpoint: str = "",
    restore: str = "",
    refused: str = "",
    long: bool = False,
) -> Report:
    """What a program of its own must find."""
    whole = f"{_WITNESS}\n\n{dedent(text)}\ntell('good')\n"
    run = (*options.split(), "localhost/python", "python3", "-c", whole)
    asked = (tuple(checkpoint.split()), tuple(restore.split()))
    return Report(source, name, run, _READY, _TOLD, *asked, refused=refused, long=long)


def shell(
    source: str,
    name: str,
    run: str,
    inside: str,
    seen: str,
    *,
    checkpoint: str = "",
    restore: str = "",
    moves: int = 1,
    refused: str = "",
    long: bool = False,
) -> Report:
    """What a shell must see."""
    asked = (tuple(checkpoint.split()), tuple(restore.split()))
    scripts = (dedent(inside), dedent(seen))
    return Report(source, name, tuple(run.split()), *scripts, *asked, moves=moves, refused=refused, long=long)


MEMORY = (
    program(
        "podman#12277",
        "a file in /dev/shm, mapped",
        """
        kept = Path("/dev/shm/PostgreSQL.1")
        kept.write_text("kept")
        with kept.open("r+b") as file:
            memory = mmap.mmap(file.fileno(), 4)
        moved()
        assert kept.read_text() == "kept"
        memory[:] = b"more"
        assert kept.read_text() == "more"
        """,
    ),
    program(
        "criu#2674",
        "a deleted file in /dev/shm that two processes map",
        """
        with open("/dev/shm/pym-1", "w+b") as file:
            file.truncate(1 << 20)
            memory = mmap.mmap(file.fileno(), 1 << 20)
        os.unlink("/dev/shm/pym-1")
        memory[:4] = b"kept"
        def answer():
            until(lambda: memory[:4] == b"asks", 600)
            memory[:4] = b"told"
        child(answer)
        moved()
        assert memory[:4] == b"kept"
        memory[:4] = b"asks"
        until(lambda: memory[:4] == b"told")
        assert os.listdir("/dev/shm") == []
        """,
    ),
    program(
        "criu#2933",
        "a POSIX semaphore by its name",
        """
        libc.sem_open.restype = ctypes.c_void_p
        semaphore = ctypes.c_void_p(libc.sem_open(b"/named", os.O_CREAT, 0o600, 2))
        moved()
        checked(libc.sem_post(semaphore))
        found = ctypes.c_void_p(libc.sem_open(b"/named", 0))
        assert [libc.sem_trywait(found) for _ in range(4)] == [0, 0, 0, -1]
        """,
        refused="/dev/shm/sem.",
    ),
    program(
        "criu#2173",
        "System V shared memory, a segment that is attached and one that is not",
        """
        attached, idle = (checked(libc.shmget(key, 8192, 0o1600)) for key in (77, 78))
        place = libc.shmat(attached, None, 0)
        ctypes.memmove(place, b"kept", 4)
        other = libc.shmat(idle, None, 0)
        ctypes.memmove(other, b"idle", 4)
        libc.shmdt(ctypes.c_void_p(other))
        moved()
        assert ctypes.string_at(place, 4) == b"kept"
        assert (libc.shmget(77, 0, 0), libc.shmget(78, 0, 0)) == (attached, idle)
        assert ctypes.string_at(libc.shmat(idle, None, 0), 4) == b"idle"
        """,
    ),
    program(
        "criu#428",
        "System V messages and semaphores",
        """
        queue = checked(libc.msgget(78, 0o1600))
        for kind, text in ((5, b"first"), (6, b"later")):
            checked(libc.msgsnd(queue, struct.pack("l", kind) + text, 5, 0))
        semaphores = checked(libc.semget(79, 3, 0o1600))
        checked(libc.semctl(semaphores, 1, 16, 5))
        moved()
        assert libc.msgget(78, 0) == queue and libc.semget(79, 0, 0) == semaphores
        told = ctypes.create_string_buffer(64)
        assert libc.msgrcv(queue, told, 5, 6, 0) == 5 and told.raw[8:13] == b"later"
        assert libc.msgrcv(queue, told, 5, 0, 0) == 5 and told.raw[8:13] == b"first"
        assert [libc.semctl(semaphores, number, 12, 0) for number in range(3)] == [0, 5, 0]
        """,
    ),
    program(
        "criu#2285",
        "a POSIX message queue",
        """
        librt = ctypes.CDLL("librt.so.1", use_errno=True)
        queue = checked(librt.mq_open(b"/queue", os.O_CREAT | os.O_RDWR, 0o600, None))
        checked(librt.mq_send(queue, b"kept", 4, 1))
        moved()
        told = ctypes.create_string_buffer(8192)
        assert librt.mq_receive(queue, told, 8192, None) == 4 and told.value == b"kept"
        """,
        refused="/queue",
    ),
    program(
        "podman#12042",
        "the System V memory of the host",
        """
        memory = checked(libc.shmget(libc.getpid(), 8192, 0o1600))
        place = libc.shmat(memory, None, 0)
        checked(libc.shmctl(memory, 0, None))
        moved()
        ctypes.memmove(place, b"kept", 4)
        """,
        "--ipc host",
        refused="--ipc=host",
    ),
    program(
        "criu#175",
        "anonymous memory that is shared with a child, and memory that is not",
        """
        shared, own = mmap.mmap(-1, 8192), mmap.mmap(-1, 8192, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        shared[:4], own[:4] = b"kept", b"mine"
        def answer():
            own[:4] = b"his "
            until(lambda: shared[:4] == b"asks", 600)
            shared[:4] = own[:4]
        child(answer)
        moved()
        assert (shared[:4], own[:4]) == (b"kept", b"mine")
        shared[:4] = b"asks"
        until(lambda: shared[:4] == b"his ")
        """,
    ),
    program(
        "criu#2267",
        "a sealed file in memory, mapped",
        """
        memory = os.memfd_create("sealed", os.MFD_ALLOW_SEALING)
        os.write(memory, b"kept")
        mapped = mmap.mmap(memory, 4)
        fcntl.fcntl(memory, 1033, 0x6)  # it neither grows nor shrinks
        moved()
        assert fcntl.fcntl(memory, 1034) == 0x6
        assert os.lseek(memory, 0, os.SEEK_CUR) == 4
        mapped[:] = b"more"
        assert os.pread(memory, 9, 0) == b"more"
        assert "memfd:sealed" in os.readlink(f"/proc/self/fd/{memory}")
        """,
    ),
    program(
        "criu#2364",
        "400 GiB that are only reserved, with something in the midst",
        """
        size, middle = 400 << 30, 200 << 30
        place = libc.mmap(None, ctypes.c_size_t(size), 0, 0x4022, -1, 0)
        assert place != ctypes.c_void_p(-1).value
        checked(libc.mprotect(ctypes.c_void_p(place + middle), ctypes.c_size_t(10 << 20), 3))
        ctypes.memset(place + middle, 7, 10 << 20)
        def mappings():
            found = [line.split()[:2] for line in open("/proc/self/maps")]
            return [(span, flags) for span, flags in found if place <= int(span.split("-")[0], 16) < place + size]
        before = mappings()
        moved()
        assert mappings() == before
        assert ctypes.string_at(place + middle, 10 << 20) == b"\\7" * (10 << 20)
        """,
    ),
    program(
        "criu#1913",
        "locked memory, memory without access, memory only to be read, and what madvise said of it",
        """
        def found(place):
            taken, kept = False, {}
            for line in open("/proc/self/smaps"):
                name, _, value = line.partition(":")
                if "-" in name and " " not in name.split("-")[0]:
                    taken = int(line.split("-")[0], 16) == place
                    if taken:
                        kept["access"] = line.split()[1]
                elif taken and name == "VmFlags":
                    kept["flags"] = {*value.split()} & {"lo", "dd", "dc", "rd", "wr", "hg", "nh", "wf"}
            return kept
        places = [libc.mmap(None, ctypes.c_size_t(1 << 20), 3, 0x22, -1, 0) for _ in range(4)]
        # The guards keep the kernel from making one mapping of all.
        for place, byte in zip(places, b"abcd"):
            ctypes.memset(place, byte, 1 << 20)
        pointers = [ctypes.c_void_p(place) for place in places]
        checked(libc.mlock(pointers[0], 4096 * 4))
        checked(libc.mprotect(pointers[1], 1 << 20, 0))
        checked(libc.mprotect(pointers[2], 1 << 20, 1))
        checked(libc.madvise(pointers[3], 1 << 20, 18))  # a child gets zeros
        before = [found(place) for place in places]
        assert "lo" in before[0]["flags"] and before[1]["access"] == "---p" and "wf" in before[3]["flags"], before
        moved()
        assert [found(place) for place in places] == before
        checked(libc.mprotect(pointers[1], 1 << 20, 1))
        for place, byte in zip(places, b"abcd"):
            assert ctypes.string_at(place, 1 << 20) == bytes([byte]) * (1 << 20)
        """,
        "--ulimit memlock=1048576",
    ),
    program(
        "criu#1696",
        "restartable sequences: the kernel goes on telling each thread its processor",
        """
        offset = ctypes.c_ssize_t.in_dll(libc, "__rseq_offset").value
        told = {}
        def processors():
            area = libc.pthread_self() + offset
            found = []
            for processor in sorted(os.sched_getaffinity(0)):
                os.sched_setaffinity(0, {processor})
                found.append(ctypes.c_int.from_address(area + 4).value == processor)
            return all(found) and len(found)
        def work():
            until(lambda: told.get("ask"), 600)
            told["thread"] = processors()
        thread(work)
        moved()
        told["ask"] = True
        until(lambda: "thread" in told)
        assert told["thread"] and processors() == told["thread"]
        """,
    ),
)

SOCKETS = (
    program(
        "criu#2425",
        "datagrams between named sockets, one that is on its way",
        """
        server, client = (socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) for _ in range(2))
        server.bind("/tmp/server")
        client.bind("/tmp/client")
        client.sendto(b"waits", "/tmp/server")
        moved()
        assert server.recv(9) == b"waits"
        client.sendto(b"more", "/tmp/server")
        assert server.recvfrom(9) == (b"more", "/tmp/client")
        server.sendto(b"back", "/tmp/client")
        assert client.recv(9) == b"back"
        """,
    ),
    program(
        "criu#195",
        "a listening socket, a new client and an old one",
        """
        server = socket.socket(socket.AF_UNIX)
        server.bind("/tmp/listens")
        server.listen(5)
        client = socket.socket(socket.AF_UNIX)
        client.connect("/tmp/listens")
        served = server.accept()[0]
        client.send(b"waits")
        served.send(b"too")
        moved()
        assert (served.recv(9), client.recv(9)) == (b"waits", b"too")
        fresh = socket.socket(socket.AF_UNIX)
        fresh.connect("/tmp/listens")
        server.accept()[0].send(b"fresh")
        assert fresh.recv(9) == b"fresh"
        """,
    ),
    program(
        "criu#1804",
        "a connection that nobody accepted yet",
        """
        server, client = (socket.socket(socket.AF_UNIX) for _ in range(2))
        server.bind("/tmp/listens")
        server.listen(5)
        client.connect("/tmp/listens")
        moved()
        served = server.accept()[0]
        client.send(b"now")
        assert served.recv(9) == b"now"
        """,
    ),
    program(
        "criu#1804",
        "something on its way in a connection that nobody accepted yet",
        """
        server, client = (socket.socket(socket.AF_UNIX) for _ in range(2))
        server.bind("/tmp/listens")
        server.listen(5)
        client.connect("/tmp/listens")
        client.send(b"waits")
        moved()
        assert server.accept()[0].recv(9) == b"waits"
        """,
        refused="in-flight",
    ),
    program(
        "criu#2499",
        "a socket with an abstract name",
        """
        server = socket.socket(socket.AF_UNIX)
        server.bind("\\0abstract")
        server.listen(5)
        moved()
        client = socket.socket(socket.AF_UNIX)
        client.connect("\\0abstract")
        client.send(b"found")
        assert server.accept()[0].recv(9) == b"found"
        """,
    ),
    program(
        "criu#1788",
        "pairs of sockets without a name, of each type, with something in them",
        """
        kinds = (socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_SEQPACKET)
        pairs = [socket.socketpair(type=kind) for kind in kinds]
        for one, other in pairs:
            one.send(b"first")
            one.send(b"second")
            other.send(b"back")
        pairs[0][0].shutdown(socket.SHUT_WR)
        moved()
        stream, datagrams, packets = pairs
        assert stream[1].recv(99) == b"firstsecond" and stream[1].recv(9) == b""
        for one, other in (datagrams, packets):
            assert (other.recv(99), other.recv(99)) == (b"first", b"second")
        assert [one.recv(9) for one, _ in pairs] == [b"back"] * 3
        """,
    ),
    program(
        "criu#251",
        "descriptors on their way through a socket",
        """
        one, other = socket.socketpair()
        Path("/tmp/passed").write_text("kept")
        file = os.open("/tmp/passed", os.O_RDONLY)
        os.lseek(file, 2, os.SEEK_SET)
        out, into = os.pipe()
        os.write(into, b"piped")
        socket.send_fds(one, [b"two files"], [file, out])
        os.close(file)
        os.close(out)
        moved()
        text, (file, out), *_ = socket.recv_fds(other, 99, 9)
        assert (text, os.read(file, 9), os.read(out, 9)) == (b"two files", b"pt", b"piped")
        """,
    ),
    program(
        "criu#1130",
        "UDP: bound and connected, by IPv4 and IPv6",
        """
        server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        server.bind(("0.0.0.0", 5353))
        client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        client.connect(("127.0.0.1", 5353))
        six = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
        six.bind(("::1", 5354))
        name = client.getsockname()
        moved()
        client.send(b"four")
        assert server.recvfrom(9) == (b"four", name)
        server.sendto(b"back", name)
        assert client.recv(9) == b"back"
        socket.socket(socket.AF_INET6, socket.SOCK_DGRAM).sendto(b"six", ("::1", 5354))
        assert six.recv(9) == b"six"
        """,
    ),
    program(
        "criu#409",
        "UDP that is held back",
        """
        server, client = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2))
        server.bind(("127.0.0.1", 5353))
        client.connect(("127.0.0.1", 5353))
        client.setsockopt(socket.IPPROTO_UDP, 1, 1)
        client.send(b"first")
        moved()
        client.setsockopt(socket.IPPROTO_UDP, 1, 0)
        assert server.recv(9) == b"first"
        """,
        refused="cork",
    ),
    program(
        "criu#673",
        "what UDP and TCP sockets are set to",
        """
        udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        tcp = socket.create_server(("", 7000))
        options = {
            udp: [(socket.SOL_SOCKET, socket.SO_BROADCAST), (socket.SOL_SOCKET, socket.SO_REUSEADDR)],
            tcp: [
                (socket.SOL_SOCKET, socket.SO_KEEPALIVE), (socket.SOL_SOCKET, socket.SO_REUSEPORT),
                (socket.IPPROTO_TCP, socket.TCP_NODELAY),
            ],
        }
        for each, names in options.items():
            for name in names:
                each.setsockopt(*name, 1)
        tcp.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 77)
        udp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 33333)
        moved()
        assert all(each.getsockopt(*name) for each, names in options.items() for name in names)
        assert tcp.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 77
        assert udp.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) == 66666
        """,
    ),
    program(
        "podman#1848",
        "an established TCP connection, with something on its way",
        """
        server = socket.create_server(("127.0.0.1", 7000))
        client = socket.create_connection(("127.0.0.1", 7000))
        served = server.accept()[0]
        client.send(b"waits")
        moved()
        assert served.recv(9) == b"waits"
        served.send(b"back")
        assert client.recv(9) == b"back"
        """,
        checkpoint="--tcp-established",
        restore="--tcp-established",
    ),
    program(
        "criu#589",
        "an established TCP connection, which nobody asked for",
        """
        server = socket.create_server(("127.0.0.1", 7000))
        client = socket.create_connection(("127.0.0.1", 7000))
        served = server.accept()[0]
        moved()
        served.send(b"still")
        assert client.recv(9) == b"still"
        """,
        refused="--tcp-established",
    ),
    program(
        "criu#2764",
        "a socket that listens, beside established connections by IPv6",
        """
        server = socket.create_server(("::1", 7000), family=socket.AF_INET6)
        client = socket.create_connection(("::1", 7000))
        served = server.accept()[0]
        moved()
        fresh = socket.create_connection(("::1", 7000))
        for one, other in ((client, served), (fresh, server.accept()[0])):
            one.send(b"sent")
            assert other.recv(9) == b"sent"
        """,
        checkpoint="--tcp-established",
        restore="--tcp-established",
    ),
    program(
        "criu#262",
        "TCP connections that one side has closed",
        """
        server = socket.create_server(("127.0.0.1", 7000))
        def connected():
            return socket.create_connection(("127.0.0.1", 7000)), server.accept()[0]
        one, other = connected()
        one.send(b"last")
        one.shutdown(socket.SHUT_WR)
        gone, left = connected()
        gone.close()
        moved()
        assert other.recv(9) == b"last" and other.recv(9) == b""
        other.send(b"still")
        assert one.recv(9) == b"still"
        assert left.recv(9) == b""
        """,
        checkpoint="--tcp-established",
        restore="--tcp-established",
    ),
    program(
        "criu#2446",
        "megabytes that a TCP connection has not taken yet",
        """
        server = socket.create_server(("127.0.0.1", 7000))
        client = socket.create_connection(("127.0.0.1", 7000))
        served = server.accept()[0]
        data, sent = os.urandom(64 << 20), 0
        client.setblocking(False)
        while True:
            try:
                sent += client.send(data[sent:])
            except BlockingIOError:
                break
        moved()
        client.close()
        found = b"".join(iter(lambda: served.recv(1 << 20), b""))
        assert len(found) == sent and found == data[:sent]
        """,
        checkpoint="--tcp-established",
        restore="--tcp-established",
    ),
)

FILES = (
    program(
        "criu#996",
        "pipes with something in them, and their size",
        """
        out, into = os.pipe()
        fcntl.fcntl(into, 1031, 1 << 17)
        os.write(into, b"x" * 70_000)
        empty, _ = os.pipe()
        fcntl.fcntl(empty, 1031, 1 << 18)
        moved()
        assert fcntl.fcntl(empty, 1032) == 1 << 18
        assert os.read(out, 1 << 17) == b"x" * 70_000
        os.write(into, b"more")
        assert os.read(out, 9) == b"more"
        """,
    ),
    program(
        "criu#3077",
        "a fifo with something in it",
        """
        os.mkfifo("/tmp/fifo")
        out = os.open("/tmp/fifo", os.O_RDONLY | os.O_NONBLOCK)
        into = os.open("/tmp/fifo", os.O_WRONLY)
        os.write(into, b"waits")
        moved()
        assert os.read(out, 9) == b"waits"
        into = os.open("/tmp/fifo", os.O_WRONLY)
        os.write(into, b"more")
        assert os.read(out, 9) == b"more"
        """,
    ),
    program(
        "criu#3109",
        "a fifo that nobody writes to",
        """
        os.mkfifo("/tmp/fifo")
        out = os.open("/tmp/fifo", os.O_RDONLY | os.O_NONBLOCK)
        moved()
        assert os.read(out, 9) == b""
        into = os.open("/tmp/fifo", os.O_WRONLY)
        os.write(into, b"more")
        assert os.read(out, 9) == b"more"
        """,
    ),
    program(
        "criu#2016",
        "a deleted file, open and mapped",
        """
        Path("/var/gone").write_bytes(b"kept" * 2048)
        file = os.open("/var/gone", os.O_RDWR)
        mapped = mmap.mmap(file, 8192)
        os.unlink("/var/gone")
        os.lseek(file, 4, os.SEEK_SET)
        moved()
        assert os.read(file, 8) == b"keptkept"
        mapped[:4] = b"more"
        assert os.pread(file, 8, 0) == b"morekept"
        assert not os.path.exists("/var/gone") and os.fstat(file).st_nlink == 0
        """,
    ),
    program(
        "criu#1672",
        "a file of the image, mapped and then deleted",
        """
        with open("/usr/share/common-licenses/GPL-3", "rb") as file:
            mapped = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
            text = file.read()
        os.unlink("/usr/share/common-licenses/GPL-3")
        moved()
        assert mapped[:] == text and len(text) > 30_000
        assert not os.path.exists("/usr/share/common-licenses/GPL-3")
        """,
        refused="GPL-3",
    ),
    program(
        "criu#219",
        "an open file whose name is gone, and which has another",
        """
        Path("/var/one").write_text("kept")
        file = os.open("/var/one", os.O_RDWR)
        os.link("/var/one", "/var/other")
        os.unlink("/var/one")
        moved()
        assert os.read(file, 9) == b"kept"
        os.write(file, b" more")
        assert Path("/var/other").read_text() == "kept more"
        assert os.fstat(file).st_nlink == 1 and sorted(os.listdir("/var")).count("other") == 1
        assert not [name for name in os.listdir("/var") if "link_remap" in name or name == "one"]
        """,
        refused="/var/one",
    ),
    program(
        "criu#2543",
        "a deleted file that is larger than CRIU keeps",
        """
        file = os.open("/var/gone", os.O_RDWR | os.O_CREAT)
        os.unlink("/var/gone")
        os.write(file, b"x" * (80 << 20))
        moved()
        assert os.pread(file, 99 << 20, 0) == b"x" * (80 << 20)
        """,
        refused="/var/gone",
    ),
    program(
        "criu#379",
        "a deleted file of 1 GiB with little in it",
        """
        file = os.open("/var/sparse", os.O_RDWR | os.O_CREAT)
        os.unlink("/var/sparse")
        os.truncate(file, 1 << 30)
        os.pwrite(file, b"middle", 1 << 29)
        moved()
        assert os.fstat(file).st_size == 1 << 30 and os.fstat(file).st_blocks < 1 << 12
        assert os.pread(file, 6, 1 << 29) == b"middle"
        """,
    ),
    program(
        "criu#65",
        "files that are written to: at an offset, at the end, through two descriptors of one opening, without a name",
        """
        data = open("/var/data", "w+b", buffering=0)
        data.write(b"0123456789")
        data.seek(3)
        twin = os.dup(data.fileno())
        log = os.open("/var/log/own", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.write(log, b"first\\n")
        unnamed = os.open("/var", os.O_TMPFILE | os.O_RDWR)
        os.write(unnamed, b"unnamed")
        moved()
        os.write(twin, b"abc")
        assert data.tell() == 6 and Path("/var/data").read_bytes() == b"012abc6789"
        os.write(log, b"second\\n")
        assert Path("/var/log/own").read_text() == "first\\nsecond\\n"
        assert os.pread(unnamed, 9, 0) == b"unnamed"
        """,
    ),
    program(
        "criu#429",
        "a deleted file of a container whose root is only to be read",
        """
        file = os.open("/scratch/gone", os.O_RDWR | os.O_CREAT)
        os.write(file, b"kept")
        os.unlink("/scratch/gone")
        Path("/run/kept").write_text("kept")
        moved()
        assert os.pread(file, 9, 0) == b"kept"
        assert Path("/run/kept").read_text() == "kept"
        try:
            Path("/var/new").touch()
        except OSError as error:
            assert error.errno == errno.EROFS
        else:
            raise AssertionError("it can be written to")
        """,
        "--read-only --tmpfs /scratch",
    ),
    program(
        "criu#14",
        "locks on files",
        """
        file = open("/var/locked", "w+")
        other = open("/var/flocked", "w+")
        fcntl.lockf(file, fcntl.LOCK_EX, 10, 5)
        fcntl.flock(other, fcntl.LOCK_EX)
        moved()
        def taken(path, call):
            script = f"import fcntl; file = open('{path}', 'r+'); fcntl.{call}"
            return "BlockingIOError" in subprocess.run(["python3", "-c", script], capture_output=True, text=True).stderr
        assert taken("/var/locked", "lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 10, 5)")
        assert not taken("/var/locked", "lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 4, 20)")
        assert taken("/var/flocked", "flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)")
        """,
        checkpoint="--file-locks",
    ),
    program(
        "criu#2018",
        "locks on files, which nobody asked for",
        """
        file = open("/var/locked", "w+")
        fcntl.flock(file, fcntl.LOCK_EX)
        moved()
        """,
        refused="--file-locks",
    ),
    shell(
        "podman#4606",
        "changes to the files of the image, over two checkpoints",
        "localhost/busybox",
        """
        echo one >/first; rm /bin/cal; mkdir -p /a/b; chmod 1711 /a/b; ln -s /nowhere /a/link
        echo more >>/etc/passwd; mv /bin/tac /bin/cat2
        """,
        """
        test $(cat /first) = one -a ! -e /bin/cal -a ! -e /bin/tac -a -L /bin/cat2
        test $(stat -c %a /a/b) = 1711; test $(readlink /a/link) = /nowhere; tail -n 1 /etc/passwd | grep -qx more
        """,
        moves=2,
    ),
    shell(
        "podman#4643",
        "a directory of the image that was removed, one that was replaced, and the root directory's mode",
        "localhost/python sleep 10000",
        """
        rm -rf /srv /etc/alternatives; mkdir /etc/alternatives; echo own >/etc/alternatives/own
        rm -rf /opt; echo a file >/opt; chmod 0711 /
        """,
        """
        test ! -e /srv; test "$(ls /etc/alternatives)" = own
        test "$(cat /opt)" = "a file"; test $(stat -c %a /) = 711
        """,
    ),
    shell(
        "podman#3443",
        "names that are long, odd, and not UTF-8; special files, holes, times, owners, attributes",
        "--cap-add MKNOD localhost/python sleep 10000",
        r"""
        mkdir /odd; cd /odd
        touch "$(printf 'x%.0s' $(seq 255))" "$(printf 'not \377 UTF-8')" "$(printf 'new\nline')" ' ' ./-rf
        mkfifo fifo; mknod null c 1 3; truncate -s 3G hole; echo end >>hole
        echo x >own; chown 1234:5678 own; chmod 6755 own; touch -d '2001-02-03 04:05:06.789' own
        python3 -c "import os; os.setxattr('own', 'user.note', b'kept'); os.symlink('own', 'link')"
        cp /usr/bin/true capable; setcap cap_net_raw+ep capable
        """,
        r"""
        cd /odd
        test -e "$(printf 'x%.0s' $(seq 255))" -a -e "$(printf 'not \377 UTF-8')" -a -e "$(printf 'new\nline')"
        test -e ' ' -a -e ./-rf -a -p fifo -a -c null; test $(stat -c %t:%T null) = 1:3
        test $(stat -c %s hole) = 3221225476 -a $(stat -c %b hole) -lt 100; tail -c 4 hole | grep -qx end
        test "$(stat -c '%u %g %a %y' own)" = '1234 5678 6755 2001-02-03 04:05:06.789000000 +0000'
        test $(readlink link) = own
        python3 -c "import os; assert os.getxattr('own', 'user.note') == b'kept'"
        python3 -c "import os; assert len(os.getxattr('capable', 'security.capability')) == 20"
        """,
    ),
    shell(
        "podman#3443",
        "70,000 files",
        "localhost/python sleep 10000",
        """
        python3 - <<'END'
        import os
        for top in range(70):
            os.makedirs(f"/many/{top}")
            for name in range(1000):
                with open(f"/many/{top}/{name}", "w") as file:
                    file.write(str(top * name))
        END
        """,
        """
        python3 - <<'END'
        for top in range(70):
            for name in range(1000):
                with open(f"/many/{top}/{name}") as file:
                    assert file.read() == str(top * name)
        END
        """,
        long=True,
    ),
    program(
        "criu#975",
        "a log that a thread writes to all the time",
        """
        counted = 0
        def write():
            global counted
            with open("/var/log/own", "w", buffering=1) as log:
                while True:
                    log.write(f"{counted}\\n")
                    counted += 1
                    time.sleep(0.0005)
        thread(write)
        until(lambda: counted > 100)
        moved()
        before = counted
        until(lambda: counted > before + 100)
        numbers = [int(line) for line in Path("/var/log/own").read_text().splitlines()]
        assert numbers == list(range(len(numbers))) and len(numbers) > before
        """,
    ),
    program(
        "criu#1972",
        "a program that was deleted while it runs, in a directory that is gone",
        """
        os.mkdir("/var/away")
        subprocess.run(["cp", "/usr/bin/sleep", "/var/away/sleep"], check=True)
        running = subprocess.Popen(["/var/away/sleep", "1000"], cwd="/var/away")
        until(lambda: os.readlink(f"/proc/{running.pid}/exe") == "/var/away/sleep")
        os.unlink("/var/away/sleep")
        os.rmdir("/var/away")
        moved()
        assert running.poll() is None
        assert os.readlink(f"/proc/{running.pid}/exe") == "/var/away/sleep (deleted)"
        assert os.readlink(f"/proc/{running.pid}/cwd") == "/var/away (deleted)"
        running.terminate()
        assert running.wait() == -signal.SIGTERM
        """,
    ),
    program(
        "criu#1972",
        "an interpreter that was replaced while it runs",
        """
        replaced = Path(os.path.realpath(sys.executable))
        new = replaced.with_suffix(".new")
        new.write_bytes(replaced.read_bytes() + b"upgraded")
        new.chmod(0o755)
        new.rename(replaced)
        moved()
        assert replaced.read_bytes().endswith(b"upgraded")
        assert os.readlink("/proc/self/exe").endswith("(deleted)")
        """,
        refused="/usr/bin/python3",
    ),
    shell(
        "criu#3157",
        "what is in a tmpfs, and in one below it",
        "--tmpfs /scratch:mode=1770,size=9m --tmpfs /scratch/deeper --mount type=tmpfs,destination=/t"
        " localhost/python sleep 10000",
        """
        echo x >/scratch/one; ln /scratch/one /scratch/two; ln -s one /scratch/link; chmod 0741 /scratch/one
        mkdir /scratch/deeper/d; echo y >/scratch/deeper/d/file
        truncate -s 5M /t/hole; echo z >>/t/hole; chown 5:6 /t/hole
        """,
        """
        test $(stat -c %h%a /scratch/two) = 2741 -a $(readlink /scratch/link) = one -a $(cat /scratch/deeper/d/file) = y
        test $(stat -c %u%g%s /t/hole) = 565242882 -a $(stat -c %a /scratch) = 1770
        grep -q ' /scratch .*size=9216k' /proc/mounts; ! grep -q ' /t .*size=9216k' /proc/mounts
        """,
    ),
)

EVENTS = (
    program(
        "criu#2256",
        "eventfd, signalfd and timerfd",
        """
        counter = os.eventfd(7)
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
        signals = checked(libc.signalfd(-1, struct.pack("Q", 1 << signal.SIGUSR1 - 1) + bytes(120), 0))
        timer = checked(libc.timerfd_create(1, 0))
        checked(libc.timerfd_settime(timer, 0, struct.pack("qqqq", 500, 0, 1000, 0), None))
        moved()
        assert os.eventfd_read(counter) == 7
        os.kill(os.getpid(), signal.SIGUSR1)
        assert struct.unpack("I", os.read(signals, 128)[:4]) == (signal.SIGUSR1,)
        told = ctypes.create_string_buffer(32)
        checked(libc.timerfd_gettime(timer, told))
        every, _, left, _ = struct.unpack("qqqq", told.raw)
        assert every == 500 and 500 < left < 1000
        """,
    ),
    program(
        "criu#319",
        "epoll: what it waits for, and how",
        """
        out, into = os.pipe()
        edge, edged = os.pipe()
        closed, other = os.pipe()
        poll = select.epoll()
        poll.register(out, select.EPOLLIN)
        poll.register(edge, select.EPOLLIN | select.EPOLLONESHOT)
        twin = os.dup(closed)
        poll.register(twin, select.EPOLLIN)
        moved()
        assert poll.poll(0) == []
        for each in (into, edged, other):
            os.write(each, b"x")
        assert sorted(poll.poll(5)) == sorted((each, select.EPOLLIN) for each in (out, edge, twin))
        assert sorted(poll.poll(5)) == sorted((each, select.EPOLLIN) for each in (out, twin))
        """,
    ),
    program(
        "criu#284",
        "inotify on a directory in memory",
        """
        watch = checked(libc.inotify_init1(0))
        checked(libc.inotify_add_watch(watch, b"/scratch", 0x100))
        moved()
        Path("/scratch/new").touch()
        assert b"new" in os.read(watch, 999)
        """,
        "--tmpfs /scratch",
    ),
    program(
        "criu#284",
        "inotify on a directory of the image",
        """
        watch = checked(libc.inotify_init1(0))
        checked(libc.inotify_add_watch(watch, b"/var", 0x100))
        moved()
        Path("/var/new").touch()
        assert b"new" in os.read(watch, 999)
        """,
        refused="notify",
    ),
    program(
        "criu#2258",
        "a descriptor of a process",
        """
        pid = child(signal.pause)
        descriptor = os.pidfd_open(pid)
        moved()
        signal.pidfd_send_signal(descriptor, signal.SIGTERM)
        assert os.waitpid(pid, 0)[1] == signal.SIGTERM
        """,
    ),
    program(
        "criu#666",
        "signals that wait, with what they carry and in their order",
        """
        waited = [signal.SIGUSR1, signal.SIGRTMIN + 1]
        signal.pthread_sigmask(signal.SIG_BLOCK, waited)
        for value in (11, 12, 13):
            checked(libc.sigqueue(os.getpid(), signal.SIGRTMIN + 1, ctypes.c_void_p(value)))
        os.kill(os.getpid(), signal.SIGUSR1)
        moved()
        assert signal.sigpending() == {*waited}
        def carried():
            info = ctypes.create_string_buffer(128)
            checked(libc.sigtimedwait(struct.pack("Q", 1 << signal.SIGRTMIN), info, struct.pack("qq", 5, 0)))
            return struct.unpack_from("q", info, 24)[0]
        assert [carried() for _ in range(3)] == [11, 12, 13]
        assert signal.sigwait([signal.SIGUSR1]) == signal.SIGUSR1
        """,
    ),
    program(
        "criu#2559",
        "a timer that comes once",
        """
        signal.signal(signal.SIGALRM, lambda *_: None)
        signal.setitimer(signal.ITIMER_REAL, 300)
        moved()
        left, again = signal.getitimer(signal.ITIMER_REAL)
        assert 100 < left < 300 and again == 0, (left, again)
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        assert signal.sigwait([signal.SIGALRM]) == signal.SIGALRM
        """,
    ),
    program(
        "criu#3001",
        "timers that come again and again: of the clock, of the process's time",
        """
        came = {}
        def count(number, _):
            came[number] = came.get(number, 0) + 1
        for number in (signal.SIGALRM, signal.SIGVTALRM, signal.SIGPROF):
            signal.signal(number, count)
        signal.setitimer(signal.ITIMER_REAL, 0.1, 0.1)
        signal.setitimer(signal.ITIMER_VIRTUAL, 0.01, 0.02)
        signal.setitimer(signal.ITIMER_PROF, 0.01, 0.02)
        moved()
        assert signal.getitimer(signal.ITIMER_REAL)[1] == 0.1
        came.clear()
        end = time.monotonic() + 20
        while len(came) < 3:
            assert time.monotonic() < end, came
        """,
    ),
    program(
        "criu#2634",
        "POSIX timers with large numbers, that signal the process and a thread",
        """
        came = []
        def take(number):
            info = ctypes.create_string_buffer(128)
            # A call that waits for a signal is interrupted by what freezes it, and by what thaws it.
            while libc.sigtimedwait(struct.pack("Q", 1 << number - 1), info, struct.pack("qq", 600, 0)) < 0:
                assert ctypes.get_errno() == errno.EINTR
            came.append((number, threading.get_native_id()))
        one, other = signal.SIGRTMIN + 2, signal.SIGRTMIN + 3
        signal.pthread_sigmask(signal.SIG_BLOCK, [one, other])
        ids = []
        def work():
            ids.append(threading.get_native_id())
            take(other)
        thread(work)
        until(lambda: ids)
        def timer(number, how, target):
            made = ctypes.c_int()
            event = struct.pack("qiii44x", 5, number, how, target)
            checked(libc.syscall(222, 1, event, ctypes.byref(made)))
            return made.value
        for _ in range(2000):
            libc.syscall(226, timer(one, 0, 0))
        first, second = timer(one, 0, 0), timer(other, 4, ids[0])
        for each, seconds in ((first, 1000), (second, 2000)):
            checked(libc.syscall(223, each, 0, struct.pack("qqqq", 0, 0, seconds, 0), None))
        moved()
        def left(each):
            told = ctypes.create_string_buffer(32)
            checked(libc.syscall(224, each, told))
            return struct.unpack_from("q", told, 16)[0]
        assert first >= 2000 and 500 < left(first) <= 1000 < left(second) <= 2000
        for each in (first, second):
            checked(libc.syscall(223, each, 0, struct.pack("qqqq", 0, 0, 0, 1), None))
        take(one)
        until(lambda: len(came) == 2)
        assert sorted(came) == [(one, os.getpid()), (other, ids[0])]
        """,
    ),
)

PROCESSES = (
    program(
        "criu#304",
        "a hundred threads, their names, and what each has of its own",
        """
        counts, ids = [0] * 100, {}
        own = threading.local()
        def work(number):
            Path("/proc/thread-self/comm").write_text(f"worker {number}")
            ids[number], own.number = threading.get_native_id(), number
            while True:
                counts[own.number] += 1
                time.sleep(0.05)
        for number in range(100):
            threading.Thread(target=work, args=(number,), daemon=True).start()
        until(lambda: len(ids) == 100 and all(counts))
        moved()
        before = [*counts]
        until(lambda: all(now > then for now, then in zip(counts, before)))
        names = {Path(f"/proc/1/task/{id}/comm").read_text().strip() for id in ids.values()}
        assert names == {f"worker {number}" for number in range(100)}
        """,
    ),
    program(
        "criu#1454",
        "sessions and process groups whose leaders have ended",
        """
        def lead():
            os.setsid()
            session = child(signal.pause)
            group = os.fork()
            if group == 0:
                os.setpgid(0, 0)
                child(signal.pause)
                os._exit(0)
            os.waitpid(group, 0)
        leader = child(lead)
        os.waitpid(leader, 0)
        def tree():
            found = {}
            for pid in [each for each in os.listdir("/proc") if each.isdigit() and each != "1"]:
                fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
                found[pid] = tuple(fields[1:4])
            return found
        until(lambda: len(tree()) == 2)
        before = tree()
        assert {each[2] for each in before.values()} == {str(leader)}
        assert len({each[1] for each in before.values()}) == 2
        moved()
        # Whoever looks from outside is a process, too.
        assert {pid: each for pid, each in tree().items() if pid in before} == before
        """,
    ),
    program(
        "criu#1647",
        "a process that has ended, and that nobody waited for",
        """
        dead, killed = child(lambda: os._exit(3)), child(signal.pause)
        os.kill(killed, signal.SIGKILL)
        until(lambda: state(dead) == state(killed) == "Z")
        moved()
        assert state(dead) == state(killed) == "Z"
        assert os.waitpid(dead, 0) == (dead, 3 << 8) and os.waitpid(killed, 0) == (killed, 9)
        """,
    ),
    program(
        "criu#734",
        "a process that inherits orphans, and the orphan that it has",
        """
        got = mmap.mmap(-1, 4096)
        def reap():
            libc.prctl(36, 1, 0, 0, 0)
            def parent():
                orphan = child(signal.pause)
                got[:8] = struct.pack("q", orphan)
            os.waitpid(child(parent), 0)
            got[8:16] = struct.pack("q", 1)
            while True:
                orphan, status = os.wait()
                got[16:24] = struct.pack("q", orphan)
                later = child(lambda: child(signal.pause))
                os.waitpid(later, 0)
                until(lambda: Path(f"/proc/self/task/{os.getpid()}/children").read_text().strip(), 20)
                got[24:32] = struct.pack("q", 1)
                signal.pause()
        reaper = child(reap)
        until(lambda: got[8] == 1)
        orphan = struct.unpack("q", got[:8])[0]
        moved()
        assert Path(f"/proc/{orphan}/stat").read_text().split()[3] == str(reaper)
        os.kill(orphan, signal.SIGTERM)
        until(lambda: struct.unpack("q", got[16:24])[0] == orphan)
        until(lambda: got[24] == 1)
        """,
    ),
    program(
        "criu#1992",
        "a process that was stopped",
        """
        pid = child(signal.pause)
        os.kill(pid, signal.SIGSTOP)
        until(lambda: state(pid) == "T")
        moved()
        assert state(pid) == "T"
        os.kill(pid, signal.SIGCONT)
        until(lambda: state(pid) == "S")
        os.kill(pid, signal.SIGTERM)
        assert os.waitpid(pid, 0)[1] == signal.SIGTERM
        """,
    ),
    program(
        "criu#2352",
        "a job that was stopped with ^Z",
        """
        pid = child(signal.pause)
        os.setpgid(pid, pid)
        os.kill(pid, signal.SIGTSTP)
        until(lambda: state(pid) == "T")
        moved()
        assert state(pid) == "T"
        os.kill(pid, signal.SIGCONT)
        until(lambda: state(pid) == "S")
        """,
        "--init=false",
    ),
    program(
        "criu#2359",
        "how processes are scheduled: their policy, also when it is not for children, and how nice they are",
        """
        def work():
            os.sched_setscheduler(0, os.SCHED_BATCH | os.SCHED_RESET_ON_FORK, os.sched_param(0))
            os.nice(7)
            signal.pause()
        def idle():
            os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
            signal.pause()
        pids = child(work), child(idle)
        def found():
            return [(os.sched_getscheduler(pid), os.getpriority(os.PRIO_PROCESS, pid)) for pid in pids]
        expected = [(os.SCHED_BATCH | os.SCHED_RESET_ON_FORK, 7), (os.SCHED_IDLE, 0)]
        until(lambda: found() == expected)
        moved()
        assert found() == expected
        """,
    ),
    program(
        "criu#2047",
        "users, groups, limits, mask, directory, name and death signal of processes",
        """
        def work():
            os.umask(0o027)
            os.chdir("/usr/share")
            resource.setrlimit(resource.RLIMIT_NOFILE, (111, 222))
            resource.setrlimit(resource.RLIMIT_CORE, (0, 4096))
            os.setgroups([7, 8])
            os.setresgid(33, 34, 35)
            os.setresuid(1001, 1002, 1003)
            libc.prctl(1, signal.SIGTERM, 0, 0, 0)
            libc.prctl(15, b"a (name) b", 0, 0, 0)
            death = ctypes.c_int()
            while True:
                libc.prctl(2, ctypes.byref(death), 0, 0, 0)
                told[0] = death.value
                time.sleep(0.02)
        told = mmap.mmap(-1, 4096)
        pid = child(work)
        lines = ("Name", "Umask", "Uid", "Gid", "Groups", "Cap", "NoNewPrivs", "Seccomp", "Sig")
        def found():
            status = [each for each in open(f"/proc/{pid}/status") if each.startswith(lines)]
            return status, Path(f"/proc/{pid}/limits").read_text(), os.readlink(f"/proc/{pid}/cwd")
        until(lambda: told[0] == signal.SIGTERM)
        before = found()
        assert "Name:\\ta (name) b\\n" in before[0] and "Uid:\\t1001\\t1002\\t1003\\t1002\\n" in before[0]
        moved()
        assert found() == before
        told[0] = 0
        until(lambda: told[0] == signal.SIGTERM)
        """,
        "--cap-add sys_ptrace",
    ),
    program(
        "criu#2228",
        "no new privileges, and capabilities that a process gave up",
        """
        def work():
            libc.prctl(24, 0, 0, 0, 0)  # chown leaves the bounding set
            libc.prctl(38, 1, 0, 0, 0)
            signal.pause()
        pid = child(work)
        def found(pid):
            return [each for each in open(f"/proc/{pid}/status") if each.startswith(("Cap", "NoNewPrivs"))]
        until(lambda: found(pid)[-1] == "NoNewPrivs:\\t1\\n")
        before, own = found(pid), found(1)
        assert own[-1] == "NoNewPrivs:\\t0\\n" and before[3] != own[3]
        moved()
        assert (found(pid), found(1)) == (before, own)
        """,
    ),
    program(
        "criu#684",
        "few capabilities, a user, no new privileges, limits",
        """
        def found():
            lines = ("Cap", "NoNewPrivs", "Uid", "Gid", "Groups", "Seccomp", "Umask")
            status = [each for each in open("/proc/self/status") if each.startswith(lines)]
            return status, Path("/proc/self/limits").read_text(), Path("/proc/self/oom_score_adj").read_text()
        before = found()
        assert "NoNewPrivs:\\t1\\n" in before[0] and "Umask:\\t0077\\n" in before[0] and before[2] == "345\\n"
        moved()
        assert found() == before
        """,
        "--user 33:44 --group-add 55 --cap-drop all --security-opt no-new-privileges --ulimit nofile=99:100 --umask 077"
        " --oom-score-adj 345",
    ),
    program(
        "criu#987",
        "a large environment, and a command line that the process has changed",
        """
        assert len(os.environ["LARGE"]) == 100_000
        start, end = (int(each) for each in Path("/proc/self/stat").read_text().rpartition(") ")[2].split()[45:47])
        title = b"title: all is well"
        ctypes.memset(start, 0, end - start)
        ctypes.memmove(start, title, len(title))
        def found():
            return Path("/proc/self/cmdline").read_bytes(), Path("/proc/self/environ").read_bytes()
        before = found()
        assert before[0].startswith(title) and b"x" * 100_000 in before[1]
        moved()
        assert found() == before
        """,
        f"--env LARGE={'x' * 100_000}",
    ),
)

TERMINALS = (
    program(
        "criu#153",
        "a terminal: its size, its settings, who is in front, what was typed",
        """
        assert os.isatty(0)
        settings = termios.tcgetattr(0)
        settings[3] &= ~termios.ECHO
        termios.tcsetattr(0, termios.TCSANOW, settings)
        fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", 33, 111, 0, 0))
        front = os.tcgetpgrp(0)
        moved()
        assert os.isatty(0) and os.ttyname(0).startswith("/dev/pts/")
        assert termios.tcgetattr(0) == settings
        assert os.tcgetpgrp(0) == front and os.getsid(0) == 1
        os.close(os.open("/dev/tty", os.O_RDWR))
        print("still here", flush=True)
        """,
        "--tty",
    ),
    program(
        "criu#76",
        "a terminal of a process's own, with a session on it",
        """
        pid, master = pty.fork()
        if pid == 0:
            os.execvp("sh", ["sh", "-c", "read line; echo got $line; exec sleep 1000"])
        fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", 44, 99, 0, 0))
        moved()
        assert struct.unpack("HHHH", fcntl.ioctl(master, termios.TIOCGWINSZ, bytes(8)))[:2] == (44, 99)
        os.write(master, b"typed\\n")
        found = b""
        while b"got typed" not in found:
            found += os.read(master, 999)
        os.write(master, b"\\3")
        assert os.waitpid(pid, 0)[1] == signal.SIGINT
        """,
    ),
)

CONTAINERS = (
    shell(
        "criu#1024",
        "a container that counts goes on, and does not start over",
        "localhost/busybox /counter.sh",
        "until test $(cat /tmp/count || echo 0) -ge 3; do sleep 0.1; done; cp /tmp/count /tmp/before",
        "until test $(cat /tmp/count) -gt $(($(cat /tmp/before) + 1)); do sleep 0.1; done",
    ),
    shell(
        "criu#1034",
        "five moves in a row",
        "localhost/busybox /counter.sh",
        "until test -s /tmp/count; do sleep 0.1; done; cp /tmp/count /tmp/before; echo moved >>/moves",
        "until test $(cat /tmp/count) -gt $(cat /tmp/before); do sleep 0.1; done; test -s /moves",
        moves=5,
    ),
    shell(
        "criu#2379",
        "a container that was restored under another name, and is checkpointed again",
        "localhost/busybox /counter.sh",
        "until test -s /tmp/count; do sleep 0.1; done; cp /tmp/count /tmp/before; hostname >/name",
        "until test $(cat /tmp/count) -gt $(cat /tmp/before); do sleep 0.1; done; test $(hostname) = $(cat /name)",
        restore="--name other",
        moves=2,
    ),
    shell(
        "podman#19325",
        "what was started by `podman exec`, and runs on",
        "localhost/python",
        "setsid sleep 12345 & echo $! >/tmp/started; exit 0",
        "tr '\\0' ' ' </proc/$(cat /tmp/started)/cmdline | grep -x 'sleep 12345 '",
    ),
    shell(
        "podman#3774",
        "a container that is removed when it ends",
        "--rm localhost/busybox /counter.sh",
        "until test -s /tmp/count; do sleep 0.1; done; cp /tmp/count /tmp/before",
        "until test $(cat /tmp/count) -gt $(cat /tmp/before); do sleep 0.1; done",
    ),
    shell(
        "podman#8836",
        "Redis with a volume of its own, and a database that was not saved",
        "--volume data:/var/lib/redis localhost/redis",
        """
        until redis-cli ping; do sleep 0.1; done
        redis-cli set unsaved kept; redis-cli set fleeting x ex 100000; redis-cli config set maxmemory 77mb
        """,
        """
        test $(redis-cli get unsaved) = kept; test $(redis-cli ttl fleeting) -gt 90000
        redis-cli config get maxmemory | grep -x 80740352; redis-cli save | grep -x OK; test -s /var/lib/redis/dump.rdb
        """,
    ),
    shell(
        "criu#320",
        "PostgreSQL, with a session that is in a transaction",
        "localhost/postgres",
        """
        until pg_isready; do sleep 0.1; done
        psql -qc 'create unlogged table t as select generate_series(1, 1000) n'
        psql -Atc 'select pg_postmaster_start_time()' >/tmp/started
        """,
        """
        test "$(psql -Atc 'select pg_postmaster_start_time()')" = "$(cat /tmp/started)"
        test $(psql -Atc 'select sum(n) from t') = 500500; psql -qc 'insert into t values (1)'
        """,
    ),
    shell(
        "podman#8781",
        "named and anonymous volumes, and one that is only to be read",
        "--volume data:/data --volume /anonymous --volume fixed:/fixed:ro localhost/python sleep 10000",
        """
        echo named >/data/file; chown 7:8 /data/file; ln -s file /data/link; chmod 1700 /data
        echo anonymous >/anonymous/file
        """,
        """
        test $(cat /data/link) = named -a $(stat -c %u:%g /data/file) = 7:8 -a $(stat -c %a /data) = 1700
        test $(cat /anonymous/file) = anonymous; ! touch /fixed/file
        """,
    ),
    shell(
        "criu#21",
        "directories of the host, one only to be read, one in the other",
        "--volume /srv/share:/host --volume /etc:/host-etc:ro --volume /srv/share:/host-etc/apt"
        " localhost/python sleep 10000",
        "grep ' /host' /proc/self/mountinfo | cut -d' ' -f5,6 | sort >/tmp/before",
        """
        grep ' /host' /proc/self/mountinfo | cut -d' ' -f5,6 | sort | cmp - /tmp/before; test $(wc -l </tmp/before) = 3
        test -e /host-etc/passwd; ! touch /host-etc/new
        """,
    ),
    shell(
        "podman#12762",
        "addresses, of the container and of its interface",
        "localhost/busybox",
        "ip -o addr show eth0 | grep -oE 'inet [^ ]*' >/tmp/before; cat /sys/class/net/eth0/address >>/tmp/before",
        """
        ip -o addr show eth0 | grep -oE 'inet [^ ]*' >/tmp/now; cat /sys/class/net/eth0/address >>/tmp/now
        test -s /tmp/before; cmp /tmp/before /tmp/now; ip route | grep -q ^default
        """,
    ),
    shell(
        "podman#3690",
        "an address that was asked for",
        "--ip 10.88.77.66 --mac-address 92:d0:c6:0a:29:33 localhost/busybox",
        "true",
        "ip -o addr show eth0 | grep -q ' 10.88.77.66/'; grep -x 92:d0:c6:0a:29:33 /sys/class/net/eth0/address",
    ),
    shell(
        "podman#10338",
        "a published port that is another one after the restore",
        "--publish 18085:8080 localhost/python",
        "until grep -q :1F90 /proc/net/tcp; do sleep 0.1; done",
        "python3 -c \"from urllib.request import urlopen as u; assert u('http://127.0.0.1:8080/').read() == b'0'\"",
        restore="--publish 18086:8080 --allow port=18086",
    ),
    shell(
        "criu#1589",
        "a sleep that nobody begins again: its end would be the container's",
        "localhost/busybox sleep 10000",
        "test $(cat /proc/1/comm) = sleep",
        "sleep 1; test $(cat /proc/1/comm) = sleep",
    ),
    program(
        "criu#2512",
        "calls that wait for a time, in threads",
        """
        ended = []
        def poll():
            ended.append((libc.poll(None, 0, 600_000), ctypes.get_errno()))
        def sleep():
            ended.append((libc.nanosleep(struct.pack("qq", 600, 0), None), ctypes.get_errno()))
        for wait in (poll, sleep):
            threading.Thread(target=wait, daemon=True).start()
        time.sleep(1)
        moved()
        time.sleep(1)
        assert not ended, ended
        """,
    ),
    shell(
        "podman#15541",
        "a secret in a container that is only to be read",
        # runc makes no mount point in /run/secrets there, and starts no such container.
        "--read-only --secret key,target=/etc/key localhost/python sleep 10000",
        "test $(cat /etc/key) = x",
        "test $(cat /etc/key) = x; ! touch /new",
    ),
    shell(
        "criu#305",
        "limits and settings of the kernel that the container was given",
        "--sysctl net.ipv4.ip_unprivileged_port_start=77 --sysctl kernel.msgmax=9999 --shm-size 7m"
        " --ulimit nproc=500:600 --hostname named --add-host other:10.0.0.9 --dns 10.0.0.7"
        " localhost/python sleep 10000",
        "true",
        """
        test $(cat /proc/sys/net/ipv4/ip_unprivileged_port_start) = 77 -a $(cat /proc/sys/kernel/msgmax) = 9999
        grep -q ' /dev/shm .*size=7168k' /proc/mounts; grep -q 'Max processes *500 *600' /proc/1/limits
        test $(hostname) = named; grep -q '^10.0.0.9.*other' /etc/hosts; grep -q '10.0.0.7' /etc/resolv.conf
        """,
    ),
)

REPORTS = MEMORY + SOCKETS + FILES + EVENTS + PROCESSES + TERMINALS + CONTAINERS
