"""workers.py [PORT]: 20 forked workers over 64 MiB that they share until they write to it (copy-on-write), and
over one anonymous MAP_SHARED mapping; the parent asks them through a pair of pipes each.

`/` answers with the number of requests so far, `/shared` with the 20 numbers in the shared mapping (how often
each worker was asked), `/worker/N` with a line of JSON from worker N: its own count and the SHA-256 of its memory.
"""

import hashlib
import json
import mmap
import os
import signal
import struct
import sys
from typing import NoReturn

import web

WORKERS = 20
MIB = 64

memory = mmap.mmap(-1, MIB << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
for _ in range(MIB):
    memory.write(os.urandom(1 << 20))
shared = mmap.mmap(-1, 4096, flags=mmap.MAP_SHARED | mmap.MAP_ANONYMOUS)


def work(number: int, questions: int, answers: int) -> NoReturn:
    """Worker `number`: one page of the memory becomes its own, the rest stays shared."""
    memory[number * 4096 : number * 4096 + 8] = struct.pack("<Q", number)
    count = 0
    while os.read(questions, 1):
        count += 1
        struct.pack_into("<Q", shared, number * 8, count)
        state = {"worker": number, "count": count, "hash": hashlib.sha256(memory).hexdigest()}
        os.write(answers, json.dumps(state).encode() + b"\n")
    os._exit(0)


pipes = []
for number in range(WORKERS):
    question_reader, question = os.pipe()
    answer_reader, answer_writer = os.pipe()
    if os.fork() == 0:
        work(number, question_reader, answer_writer)
    os.close(question_reader)
    os.close(answer_writer)
    pipes.append((question, os.fdopen(answer_reader, "r")))
requests = web.Counter()


def answer(path: str) -> str | None:
    """What `GET path` says."""
    if path == "/":
        return requests()
    if path == "/shared":
        return json.dumps(struct.unpack_from(f"<{WORKERS}Q", shared))
    head, _, tail = path.rpartition("/")
    if head == "/worker" and tail.isdigit() and int(tail) < WORKERS:
        question, reply = pipes[int(tail)]
        os.write(question, b"?")
        return reply.readline().strip()
    return None


signal.signal(signal.SIGCHLD, signal.SIG_IGN)
web.serve(answer, int(sys.argv[1]) if sys.argv[1:] else web.PORT)
