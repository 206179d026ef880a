"""The verbs of `lab`, and what they print: data on stdout, words on stderr."""

import argparse
import sys
import time

from lablib import doctor, enter, hosts, images
from lablib.layout import HOSTS, Lab, LabError, host


def _up(lab: Lab, args: argparse.Namespace) -> int:
    names = [host(name).name for name in args.host] or [known.name for known in HOSTS if not known.systemd]
    started = time.monotonic()
    if not images.built(lab):
        print("lab: building the root and the images; this takes a minute, once", file=sys.stderr)
    hosts.up(lab, names)
    print(f"lab: {', '.join(names)} up in {time.monotonic() - started:.1f} s", file=sys.stderr)
    return 0


def _down(lab: Lab, _args: argparse.Namespace) -> int:
    hosts.down(lab)
    return 0


def _status(_lab: Lab, _args: argparse.Namespace) -> int:
    found = hosts.status()
    for each in found:
        print(f"{each.host.name:<10}{each.host.address:<16}{f'up, pid {each.pid}' if each.pid else 'down'}")
    return 0 if all(each.pid or each.host.systemd for each in found) else 1


def _doctor(lab: Lab, _args: argparse.Namespace) -> int:
    found = list(doctor.findings(lab))
    for line in found:
        print(line)
    if not found:
        print("lab: this machine can carry a lab", file=sys.stderr)
    return 1 if found else 0


def _build(lab: Lab, args: argparse.Namespace) -> int:
    doctor.insist(lab)
    if args.what == "languages":
        print(images.languages(lab))
        return 0
    cached = images.ensure(lab)
    print(cached.root, cached.images, sep="\n")
    return 0


def _path(_lab: Lab, args: argparse.Namespace) -> int:
    pid = enter.running(host(args.host).name)
    if pid is None:
        raise LabError(f"host {args.host!r} is not up; `lab up` starts it")
    print(f"/proc/{pid}/root")
    return 0


def _purge(lab: Lab, _args: argparse.Namespace) -> int:
    hosts.purge(lab)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="lab", description="Real hosts on one machine, to try ocickpt on.")
    verbs = parser.add_subparsers(required=True, metavar="VERB")

    verb = verbs.add_parser("up", help="bring hosts up: a, b and registry, or those named")
    verb.add_argument("host", nargs="*", metavar="HOST")
    verb.set_defaults(run=_up)
    verb = verbs.add_parser("exec", help="run a command in a host: exec HOST CMD [ARG…]")
    verb.set_defaults(run=_status)  # never reached, enter.main() did it
    for name, run, words in (
        ("down", _down, "remove all hosts and all they left"),
        ("status", _status, "say which hosts are up; exit code 1 unless a, b and registry are"),
        ("doctor", _doctor, "say what this machine lacks to carry a lab, a line each"),
        ("purge", _purge, "down, and empty the cache"),
    ):
        verbs.add_parser(name, help=words).set_defaults(run=run)
    verb = verbs.add_parser("build", help="build the root and the images into the cache, and say where")
    verb.add_argument("what", nargs="?", choices=["languages"], help="a file system with a JVM and node instead")
    verb.set_defaults(run=_build)
    verb = verbs.add_parser("path", help="print where a host's files can be seen from outside")
    verb.add_argument("host", metavar="HOST")
    verb.set_defaults(run=_path)
    return parser


def main(argv: list[str]) -> int:
    """Run `lab ARGV` and return its exit code."""
    args = _parser().parse_args(argv)
    try:
        code: int = args.run(Lab.from_environment(), args)
    except LabError as error:
        print(f"lab: {error}", file=sys.stderr)
        return 1
    except PermissionError as error:
        print(f"lab: {error}: a lab takes root", file=sys.stderr)
        return 1
    return code
