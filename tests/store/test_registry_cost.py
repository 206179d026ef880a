"""What a registry's answers may cost: time, memory, however they are made to take more."""

from __future__ import annotations

import contextlib
import io
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ocickpt.errors import AuthError, OcickptError, RegistryError
from ocickpt.model import Silent
from ocickpt.store import Access, Retry, copy_blobs
from ocickpt.store.access import Pace
from ocickpt.store.auth import parse_challenges
from ocickpt.store.registry import RegistryStore
from tests.store.conftest import FAST
from tests.store.material import TYPE, blob_of, data_of, put_artifact
from tests.store.registry_server import Registry, serve
from tests.store.test_registry_access import log_in

LONG = 65_000
"""http.client takes 64 KiB of a header."""
PACE = Pace(head=0.5, small=0.5, window=0.3, least=3000)
HURRY = Access(tls_verify=False, retry=Retry(attempts=2, base=0.005, ceiling=0.05, total=20), pace=PACE)
DATA = data_of(300)
BLOB = blob_of(DATA)

Read = Callable[[RegistryStore], object]


def read(store: RegistryStore) -> bytes:
    with store.open_blob(BLOB) as stream:
        return stream.read()


READS: dict[str, Read] = {
    "blob": read,
    "range": lambda store: store.read_at(BLOB, 10, 200),
    "manifest": lambda store: store.resolve("1"),
    "tags": lambda store: store.tags(),
    "upload": lambda store: store.put_blob_bytes(TYPE, b"new"),
    "delete": lambda store: store.delete("1"),
}


@pytest.fixture
def filled(registry: Registry) -> Iterator[Registry]:
    with RegistryStore(registry.host, "web", FAST) as store:
        put_artifact(store, "1", b"{}", DATA)
    yield registry


@contextlib.contextmanager
def within(seconds: float) -> Iterator[None]:
    begin = time.monotonic()
    yield
    assert time.monotonic() - begin < seconds


# Headers.


@pytest.mark.parametrize(
    "piece",
    [
        "a",
        "a=",
        "a b ",
        'a="',
        'a="\\',
        "a =",
        " ",
        ",",
        ", ",
        "basic ",
        "bearer, ",
        "Bearer a=b, ",
        '"',
        '"\\"',
        "\\",
        "a\t",
    ],
)
@pytest.mark.parametrize("before", ["", "Bearer ", 'Bearer realm="', 'Bearer realm="x", '])
def test_challenges_of_any_length(before: str, piece: str) -> None:
    with within(3):
        parse_challenges([before + piece * (LONG // len(piece)), before + piece * (LONG // len(piece)) + "!"])


PIECES = ["a", "<a>; ", "<", "<a>;rel", "a=b;", " ", "/", "?", "%41", ".", "../", "0", "sha256:", "\xe4"]


@pytest.mark.parametrize("name", ["WWW-Authenticate", "Link", "Location", "Retry-After", "Content-Range", "Range",
                                  "Docker-Content-Digest", "Content-Type", "Content-Encoding"])  # fmt: skip
@pytest.mark.parametrize("status", [200, 202, 307, 401])
def test_headers_of_any_length(filled: Registry, name: str, status: int) -> None:
    filled.faults.answer = (status, b"{}")
    with RegistryStore(filled.host, "web", HURRY) as store:
        for piece in PIECES:
            filled.faults.headers = {name: (piece * LONG)[:LONG]}
            with within(10):
                for action in READS.values():
                    with contextlib.suppress(OcickptError):
                        action(store)


def test_a_long_header_is_said_to_be_one(filled: Registry) -> None:
    filled.faults.headers = {"Link": "x" * LONG}
    with (
        RegistryStore(filled.host, "web", HURRY) as store,
        pytest.raises(RegistryError, match="answers with a header Link of more than 8192 bytes"),
    ):
        store.tags()


@pytest.mark.parametrize(
    ("link", "found"),
    [
        ('</v2/web/tags/list?last=a>; rel="next"', "a"),
        ("</v2/web/tags/list?last=a>;rel=next", "a"),
        ('<x?last=b>; rel="prev", <list?last=a>; title="x"; rel="last next"', "a"),
        ('</v2/web/tags/list?last=a>; rel="nextish"', ""),
        ('</v2/web/tags/list?last=a>; title="next"', ""),
        ("nonsense", ""),
    ],
)
def test_the_next_page(filled: Registry, link: str, found: str) -> None:
    filled.faults.headers = {"Link": link}
    with RegistryStore(filled.host, "web", HURRY) as store, contextlib.suppress(RegistryError):
        store.tags()
    asked = [seen.path for seen in filled.asked("GET", "tags/list")]
    assert asked[1:2] == ([f"/v2/web/tags/list?last={found}"] if found else [])


# Content-Encoding.


@pytest.mark.parametrize(
    "encoding", ["gzip", "x-gzip", "GZIP", "deflate", "br", "zstd", "identity, gzip", "gzip, gzip"]
)
@pytest.mark.parametrize("what", ["blob", "range", "manifest", "tags"])
def test_encoded_answers_are_refused(filled: Registry, what: str, encoding: str) -> None:
    filled.faults.encoding = encoding
    with (
        RegistryStore(filled.host, "web", HURRY) as store,
        pytest.raises(RegistryError, match=r"sends its answer encoded .*, which was not asked for"),
    ):
        READS[what](store)


@pytest.mark.parametrize("encoding", ["gzip", "x-gzip", "deflate", "identity, gzip"])
def test_encoded_tokens_are_refused(filled: Registry, home: Path, encoding: str) -> None:
    filled.faults.login = "me:secret"
    log_in(home, filled, "me:secret")
    filled.faults.encoding = encoding
    with RegistryStore(filled.host, "web", HURRY) as store, pytest.raises(RegistryError, match="answer encoded"):
        store.tags()


@pytest.mark.parametrize(("status", "error"), [(401, AuthError), (403, AuthError), (500, RegistryError)])
def test_encoded_errors_are_not_decoded(filled: Registry, status: int, error: type[RegistryError]) -> None:
    filled.faults.answer = (status, b'{"errors": [{"message": "let me in"}]}')
    with RegistryStore(filled.host, "web", HURRY) as store:
        with pytest.raises(error, match="let me in"):
            store.tags()
        filled.faults.encoding = "gzip"
        with pytest.raises(error) as caught:
            store.tags()
    assert "let me in" not in caught.value.message


@pytest.mark.parametrize("encoding", ["", "identity", "Identity, identity"])
def test_answers_that_are_not_encoded_are_taken(filled: Registry, encoding: str) -> None:
    filled.faults.headers = {"Content-Encoding": encoding}
    with RegistryStore(filled.host, "web", HURRY) as store:
        assert read(store) == DATA
        assert store.tags() == ["1"]


_BOMB = """
import gzip, sys
sys.path.insert(0, {path!r})
from tests.store.registry_server import serve
from tests.store.test_registry_cost import HURRY, READS
from ocickpt.errors import RegistryError
from ocickpt.store.registry import RegistryStore
# 256 MiB of zeros, as many gzip members of one MiB.
body = gzip.compress(bytes(1 << 20)) * 256
with serve() as registry:
    registry.faults.headers = {{"Content-Encoding": "gzip"}}
    for status in (200, 206, 401, 404, 500):
        registry.faults.answer = (status, body)
        with RegistryStore(registry.host, "web", HURRY) as store:
            for action in READS.values():
                try:
                    action(store)
                except Exception as error:
                    print(type(error).__name__, error, file=sys.stderr)
# Not ru_maxrss, in which that of the process counts that started this one.
print(next(int(line.split()[1]) >> 10 for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


def test_what_is_encoded_costs_no_memory() -> None:
    code = _BOMB.format(path=str(Path(__file__).parents[2]))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 150


# Time.


@pytest.mark.parametrize("slow", ["head", "body"])
@pytest.mark.parametrize("what", ["blob", "range", "manifest", "tags"])
def test_a_byte_at_a_time(filled: Registry, what: str, slow: str) -> None:
    filled.faults.slow = slow
    filled.faults.pause = 0.02 if slow == "body" else 0.05
    with (
        RegistryStore(filled.host, "web", HURRY) as store,
        within(8),
        pytest.raises(RegistryError, match=r"connection .* was lost.*: it sends too slowly"),
    ):
        filled.faults.answer = (200, b"[" * 300) if what in ("manifest", "tags") else None
        READS[what](store)


@pytest.mark.parametrize("slow", ["head", "body"])
def test_a_token_a_byte_at_a_time(filled: Registry, home: Path, slow: str) -> None:
    filled.faults.login = "me:secret"
    log_in(home, filled, "me:secret")
    with RegistryStore(filled.host, "web", HURRY) as store:
        store.tags()
        filled.tokens.clear()
        filled.faults.slow = slow
        with within(8), pytest.raises(RegistryError, match="sends too slowly"):
            store.tags()


@pytest.mark.parametrize("status", [401, 403, 404, 418, 500])
def test_an_error_a_byte_at_a_time(filled: Registry, status: int) -> None:
    filled.faults.answer = (status, b'{"errors": [{"message": "' + b"x" * 300 + b'"}]}')
    filled.faults.slow = "body"
    with RegistryStore(filled.host, "web", HURRY) as store, within(8), pytest.raises(OcickptError):
        READS["blob"](store) if status != 404 else store.untag("1")


@pytest.mark.parametrize("noise", ["trailers", "continue"])
@pytest.mark.parametrize("what", ["blob", "manifest", "tags"])
def test_noise_without_end(filled: Registry, what: str, noise: str) -> None:
    filled.faults.noise = noise
    with (
        RegistryStore(filled.host, "web", HURRY) as store,
        within(8),
        pytest.raises(RegistryError, match=r"does not stop sending|too slowly"),
    ):
        READS[what](store)


def test_a_slow_line_is_waited_for(registry: Registry) -> None:
    """Twice the least rate, for many times the window."""
    data = data_of(6 * PACE.least)
    with RegistryStore(registry.host, "web", HURRY) as store:
        blob = store.put_blob_bytes(TYPE, data)
        registry.faults.rate = 2 * PACE.least / PACE.window
        begin = time.monotonic()
        with store.open_blob(blob) as stream:
            assert stream.read() == data
        assert store.read_at(blob, 100, len(data) - 200) == data[100:-100]
        assert time.monotonic() - begin > 4 * PACE.window


def test_whoever_reads_may_take_his_time(registry: Registry) -> None:
    data = data_of(3_000_000)
    with RegistryStore(registry.host, "web", HURRY) as store:
        blob = store.put_blob_bytes(TYPE, data)
        with store.open_blob(blob) as stream:
            parts = [stream.read(1_000_000)]
            time.sleep(2 * PACE.window)
            parts.append(stream.read())
        assert b"".join(parts) == data
    assert len(registry.asked("GET", "/blobs/")) == 1


def test_a_slow_answer_leaves_the_next_its_time(filled: Registry) -> None:
    with RegistryStore(filled.host, "web", HURRY) as store:
        filled.faults.headers = {"X": "y" * 5}
        filled.faults.slow, filled.faults.pause = "head", 0.001
        assert store.tags() == ["1"]
        filled.faults.slow = ""
        data = data_of(3_000_000)
        store.put_blob(blob_of(data), lambda: io.BytesIO(data), Silent())


def test_from_one_registry_to_another(filled: Registry) -> None:
    """What is sent is read from an answer meanwhile."""
    data = data_of(3_000_000)
    with serve() as elsewhere, RegistryStore(filled.host, "web", HURRY) as store:
        blob = store.put_blob_bytes(TYPE, data)
        filled.faults.drop_download_after = [1_500_000]
        with RegistryStore(elsewhere.host, "copy", HURRY) as other:
            copy_blobs(store, other, [blob], Silent())
        assert elsewhere.blobs["copy", blob.digest] == data


def test_everything_together_may_be_given_an_end(filled: Registry) -> None:
    patient = Retry(attempts=1000, base=0.05, ceiling=0.1, total=60)
    access = Access(tls_verify=False, retry=patient, pace=PACE, within=1.0)
    filled.faults.answers = [(503, "")] * 1000
    with (
        RegistryStore(filled.host, "web", access) as store,
        within(8),
        pytest.raises(RegistryError, match="has not sent what is needed within 1 s") as caught,
    ):
        store.tags()
    assert "ocickpt pull" in caught.value.hint


def test_a_blob_that_never_ends_well_is_given_up(filled: Registry) -> None:
    """Not attempts times attempts."""
    access = Access(tls_verify=False, retry=Retry(attempts=1000, base=0.05, ceiling=0.05, total=0.5), pace=PACE)
    filled.faults.drop_download_after = [1] * 10_000
    with RegistryStore(filled.host, "web", access) as store, within(8), pytest.raises(RegistryError):
        read(store)
