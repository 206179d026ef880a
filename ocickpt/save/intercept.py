"""`podman container checkpoint` that goes into a registry as well, because container or host ask for it.

The shim calls this in the place of the runtime. podman gets the dump that it asked for, whole, and the runtime's
exit code, whatever becomes of the rest: what goes wrong on our side is told on stderr and in the system log.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

from ocickpt import config, proc
from ocickpt.description import Options
from ocickpt.engine import freezer, host, interrupted
from ocickpt.engine.criu import pages
from ocickpt.engine.podman import database
from ocickpt.engine.runtime import command_line
from ocickpt.errors import UnsupportedError
from ocickpt.log import say, told
from ocickpt.model import Silent
from ocickpt.operations.journal import Intercept, Journal
from ocickpt.save import collect, extras, unpublished
from ocickpt.store import Access, Reference, Retry
from ocickpt.versions import numbers

_CRIU_FROZEN = (4, 1)

_SIGNALS = signal.SIGINT, signal.SIGTERM, signal.SIGHUP
_ACCESS = Access(retry=Retry(attempts=4))
"""The container's lock is held while we wait for a registry: what it does not take soon it gets later."""


def checkpoint(call: list[str], rest: list[str], bundle: Path) -> int:
    """Do what ``RUNTIME checkpoint …`` does, and publish it if that is wanted; the runtime's exit status."""
    made, container = None, command_line.container(rest, "checkpoint")
    for number in _SIGNALS:
        signal.signal(number, lambda *_: None)  # the runtime hears them itself; what it began is brought to an end
    try:
        settings = config.load()
        unpublished.settle_all(Silent(), container, whole=False)
        found = database.read(bundle)
        text, by_itself = collect.wanted(found, settings)
        if text and _is_whole(rest):
            options = Options(
                leave_running=_asks(rest, "--leave-running"),
                tcp_established=_asks(rest, "--tcp-established"),
                file_locks=_asks(rest, "--file-locks"),
                rootfs=True,
                volumes=True,
            )
            made = collect.begin(found, text, options, running=True)
    except Exception as error:  # noqa: BLE001 - whatever it is, podman gets its checkpoint
        _alone(error)
    if made is None:
        command_line.become(call[0], [*call[1:], "checkpoint", *rest])
    status = _dump(made, found, call, rest)
    if status == 0 and made.record.step == "dumped":
        signal.signal(signal.SIGINT, signal.default_int_handler)
        publish(made, background=settings.background, quiet=not by_itself)
    return status


def publish(made: Journal[Intercept], *, background: bool, quiet: bool) -> None:
    """Publish what is packaged, now or in the `background`, and say what became of it. Never raises.

    With `quiet` what went well is told to the system log only: podman's output is what who called it expects.
    """
    if background and _leave():
        return
    later = f"`ocickpt push {made.record.name}` publishes it"
    try:
        published = unpublished.conclude(made, _ACCESS, Silent())
        pinned = Reference.parse(published.reference).with_digest(published.digest)
        say(str(pinned), quiet=background or quiet, plain=True)
    except KeyboardInterrupt:
        made.step("dumped", reason="interrupted")
        say(f"interrupted: the checkpoint is on this host, {later}", error=True)
    except Exception as error:  # noqa: BLE001 - whatever it is, podman has its checkpoint
        say(f"the checkpoint is on this host only: {told(error)}; {later}", error=True, quiet=background)


def _alone(error: Exception) -> None:
    say(f"this checkpoint is podman's alone, it is not published: {told(error)}", error=True)


def _is_whole(rest: list[str]) -> bool:
    """Whether this is a checkpoint that can be restored: not one that others build upon, or that builds on others."""
    if command_line.option(rest, "--parent-path", "checkpoint"):
        raise UnsupportedError("it builds on an earlier one (--with-previous), which an artifact cannot")
    if _asks(rest, "--leave-running") and numbers(host.criu_version()) < _CRIU_FROZEN:
        raise UnsupportedError("this host's CRIU cannot dump a frozen container")
    return not _asks(rest, "--pre-dump")


def _asks(rest: list[str], flag: str) -> bool:
    return command_line.flag(rest, flag, "checkpoint")


def _dump(made: Journal[Intercept], found: database.Recorded, call: list[str], rest: list[str]) -> int:
    """Have the runtime dump, and take all parts; what goes wrong with the parts is no fault of the dump."""
    work, runs_on = Path(made.record.work), made.record.options.leave_running

    def ours(step: Callable[[], object]) -> bool:
        try:
            step()
        except Exception as error:  # noqa: BLE001 - as above
            _alone(error)
            return False
        return True

    def freeze() -> None:
        # Stopped by its dump a container needs no more freezing; one that runs on must not write meanwhile.
        made.step("frozen", thaw=(*call, "resume", found.container.id))
        proc.run([*call, "pause", found.container.id])
        freezer.wait(found.container.pid)
        collect.take_files(found, work)

    status = 1
    good = ours(lambda: pages.clear(found.container.image_path))  # what an earlier one left would get mixed in
    good = good and (not runs_on or ours(freeze))
    good = good and ours(lambda: extras.take(found.container, work))
    try:
        status = proc.call([*call, "checkpoint", *rest])
    finally:
        if runs_on:
            try:
                interrupted.begin_again(found.container.pid)
            except OSError as error:
                say(f"calls in which the container waited may fail with EINTR: {error}", error=True)
            proc.run([*call, "resume", found.container.id], check=False)
    good = good and status == 0
    good = good and (runs_on or ours(lambda: collect.take_files(found, work)))
    good = good and ours(lambda: collect.take_images(found, work)) and ours(lambda: made.step("dumped"))
    if not good:
        ours(lambda: unpublished.drop(made))
    return status if status >= 0 else 128 - status


def _leave() -> bool:
    """Go on as another process, of which nobody waits for; False in that one."""
    if os.fork():
        return True
    os.setsid()
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in range(3):
        os.dup2(null, descriptor)
    return False
