"""The launcher: the shell script that podman, or any other engine, runs in the place of runc or crun.

It costs every container start next to nothing: one process, which becomes the runtime. Only what ocickpt has
a part in, or may have, goes through Python (`shim.py`).
"""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ocickpt import config, names, proc, rendezvous
from ocickpt.engine import host
from ocickpt.engine.runtime import command_line, table
from ocickpt.errors import OcickptError, PrerequisiteError

MARKER = "# Made by `ocickpt setup`; `ocickpt setup --undo` removes it."
SHIM = rendezvous.PACKAGE / "shim.py"
_SHIMS_HALF = (
    *("shim.py", "rendezvous.py", "operations/asking.py", "save/frozen.py", "save/unasked.py", "restoration/asked.py"),
    *("engine/runtime/command_line.py", "engine/runtime/calling.py", "engine/criu/pages.py", "engine/files/capture.py"),
    "engine/files/openat2.py",
)
"""What a shim is made of that a flow waits for, below the package."""
CHOOSER = "ocickpt-runtime"
"""The launcher whose runtime the host's configuration names."""
LAUNCHERS = Path("/usr/local/libexec/ocickpt")
DROP_IN = Path("/etc/containers/containers.conf.d/50-ocickpt.conf")
_OVERRIDE = "CONTAINERS_CONF_OVERRIDE"

# One exec for everything, and no process of its own on the way but for `create`. Variables are spelled so that
# none in the caller's environment is touched. What the options are is in `command_line`.
_LAUNCHER = """\
#!/bin/sh
{marker}
#
# Hands every call over to the runtime, but through ocickpt's shim: `checkpoint`, which may have to be pushed;
# `restore`, while an `ocickpt` is at work; `create` of a container that is to be restored instead, and what
# comes before it runs. The two probes podman makes have a single argument and never go there.
_ocickpt_runtime={runtime}
_ocickpt_python={python}
_ocickpt_shim={shim}
[ -x "$_ocickpt_runtime" ] || {{ _ocickpt_runtime={name}; _ocickpt_python=''; }}
case " $* " in
    *' checkpoint '* | *' restore '* | *' create '*) ;;
    *)
        # Most calls: the shell has not read what follows when it becomes the runtime.
        for _ocickpt_word in {created}/*; do
            case $_ocickpt_word in
                '{created}/*') exec "$_ocickpt_runtime" "$@" ;;
            esac
            break
        done
        ;;
esac
_ocickpt_verb='' _ocickpt_skip='' _ocickpt_rest=0 _ocickpt_bundle=. _ocickpt_ours=''
for _ocickpt_word do
    if [ -n "$_ocickpt_skip" ]; then
        [ "$_ocickpt_skip" = 1 ] || _ocickpt_bundle=$_ocickpt_word
        _ocickpt_skip=''
        continue
    fi
    case $_ocickpt_verb in
        '')
            case $_ocickpt_word in
                {valued}) _ocickpt_skip=1 ;;
                -*) ;;
                {verbs}) _ocickpt_verb=$_ocickpt_word ;;
                *) break ;;
            esac
            continue
            ;;
    esac
    _ocickpt_rest=$((_ocickpt_rest + 1))
    case $_ocickpt_verb$_ocickpt_word in
        {ends}) _ocickpt_rest=2; break ;;
        {helps}) _ocickpt_verb=help; break ;;
        {bundle}) _ocickpt_skip=bundle ;;
        {bundle_long}) _ocickpt_bundle=${{_ocickpt_word#*=}} ;;
        create-b*) _ocickpt_word=${{_ocickpt_word#-b}}; _ocickpt_bundle=${{_ocickpt_word#=}} ;;
        {valued_after}) _ocickpt_skip=1 ;;
    esac
done
case $_ocickpt_verb in
    checkpoint)
        [ "$_ocickpt_rest" -le 1 ] || _ocickpt_ours=1
        ;;
    restore)
        if [ "$_ocickpt_rest" -gt 1 ]; then
            for _ocickpt_word in {operations}/*; do
                [ ! -e "$_ocickpt_word" ] || _ocickpt_ours=1
            done
        fi
        ;;
    create)
        if grep -qsF {annotation} "$_ocickpt_bundle/config.json"; then _ocickpt_ours=1; fi
        ;;
    start | state | delete)
        for _ocickpt_word do
            [ ! -e "{created}/$_ocickpt_word" ] || _ocickpt_ours=1
        done
        ;;
esac
if [ -n "$_ocickpt_ours" ]; then
    if [ -x "$_ocickpt_python" ] && [ -r "$_ocickpt_shim" ]; then
        exec "$_ocickpt_python" -I {start} "$_ocickpt_runtime" "$@"
    fi
    _ocickpt_word='ocickpt: its shim is not where `ocickpt setup` found it: run that again'
    logger -t ocickpt -p daemon.err "$_ocickpt_word" 2>/dev/null
    if [ "$_ocickpt_verb" = create ]; then
        echo "$_ocickpt_word; this container is to be restored and was not started" >&2
        exit 1
    fi
fi
exec "$_ocickpt_runtime" "$@"
"""

_CHOOSER = """\
#!/bin/sh
{marker}
#
# The launcher of the runtime that the host's configuration names, else that of {default}.
_ocickpt_name={default}
if [ -r {config} ]; then
    while IFS= read -r _ocickpt_line; do
        case $_ocickpt_line in
            '['*) break ;;
{choices}
        esac
    done < {config}
fi
exec {directory}/"$_ocickpt_name" "$@"
"""


_CHOICE = """            runtime*=*[\\"\\']{name}[\\"\\']*) _ocickpt_name={name} ;;"""

_HOOK = """\
#!/bin/sh
{marker}
#
# Hands an OCI hook over to ocickpt. Without Python, what only ocickpt may allow does not start.
exec {python} -I {start} "$@"
"""


@dataclass(frozen=True, slots=True)
class Launcher:
    """What stands in the launcher of one runtime."""

    name: str
    runtime: str
    """The program behind it."""
    python: str
    shim: str
    """The shim's source file; its code is found by `start`."""
    start: str

    @classmethod
    def of(cls, name: str, runtime: str, python: str) -> Launcher:
        """The launcher that hands the calls of the runtime `name` over to `runtime`, or to our shim under `python`."""
        return cls(name, runtime, python, str(SHIM), _start("shim"))

    def text(self) -> str:
        """The script."""
        return _LAUNCHER.format(
            marker=MARKER,
            name=self.name,
            runtime=shlex.quote(self.runtime),
            python=shlex.quote(self.python),
            shim=shlex.quote(self.shim),
            operations=rendezvous.OPERATIONS,
            created=rendezvous.CREATED,
            annotation=names.ANNOTATION_RESTORE,
            start=self.start,
            **_patterns(),
        )

    @classmethod
    def read(cls, name: str, path: Path) -> Launcher | None:
        """What stands in the launcher at `path`; None for any file that is not exactly a launcher."""
        text = read(path) if is_ours(path) else ""
        try:
            words = [shlex.split(line, comments=True) for line in text.splitlines()]
        except ValueError:
            return None
        recorded = dict(line[0].partition("=")[::2] for line in words if len(line) == 1)
        start = next((line[3:-2] for line in words if line[:1] == ["exec"] and len(line) > 5), [])
        runtime, python, its_shim = (recorded.get(f"_ocickpt_{part}", "") for part in ("runtime", "python", "shim"))
        found = cls(name, runtime, python, its_shim, shlex.join(start))
        return found if found.text() == text else None


@dataclass(frozen=True, slots=True)
class State:
    """How it stands with one runtime's launcher."""

    runtime: str
    """Its name."""
    target: str
    """The program the launcher hands over to; empty when there is no launcher of ours."""
    trouble: str
    """Why the launcher would not lead to the shim; empty when it would."""


def states(*, launchers: Path = LAUNCHERS, drop_in: Path = DROP_IN) -> list[State]:
    """How it stands with each runtime; asks no program."""
    shown = read(drop_in) if is_ours(drop_in) else ""
    return [_state(name, launchers / name, shown, drop_in) for name in table.NAMES]


def _state(name: str, launcher: Path, shown: str, drop_in: Path) -> State:
    known = Launcher.read(name, launcher)
    trouble = ""
    if known is None:
        trouble = "there is no launcher" if not is_ours(launcher) else f"{launcher} was changed"
    elif json.dumps(str(launcher)) not in shown:
        trouble = f"{drop_in} does not name {launcher}"
    elif not os.access(known.runtime, os.X_OK):
        trouble = f"{launcher} leads to {known.runtime}, which is not there"
    elif not os.access(known.python, os.X_OK):
        trouble = f"{launcher} wants {known.python}, which is not there"
    elif not _speaks_as_we_do(Path(known.shim)):
        trouble = f"{launcher} leads to the shim of another version, {known.shim}"
    return State(name, known.runtime if known else "", trouble)


def _speaks_as_we_do(shim: Path) -> bool:
    """Whether the shim of an installation does its half as this version does the other."""
    if shim.resolve() == SHIM.resolve():
        return True
    return all(read(shim.parent / each) == read(SHIM.parent / each) != "" for each in _SHIMS_HALF)


def installed(runtime: str, *, launchers: Path = LAUNCHERS, drop_in: Path = DROP_IN) -> bool:
    """Whether podman's calls of the runtime of that name go through our launcher to this version's shim."""
    return any(each.runtime == runtime and not each.trouble for each in states(launchers=launchers, drop_in=drop_in))


def for_one_call(runtime: str, directory: Path) -> dict[str, str]:
    """A launcher in `directory` for one call of podman: the environment in which podman uses it (containers.conf(5)).

    Nothing of it is remembered: podman knows a container's runtime by name. Raises PrerequisiteError.
    """
    if taken := os.environ.get(_OVERRIDE):
        raise PrerequisiteError(
            f"{_OVERRIDE} is set, to {taken}: podman could not be shown ocickpt's launcher beside it",
            hint="`ocickpt setup` puts the launcher in place",
        )
    target = host.runtime_path(runtime)
    if is_ours(Path(target)):
        known = Launcher.read(runtime, Path(target))
        target = known.runtime if known else ""
    if not os.access(target, os.X_OK):
        raise PrerequisiteError(f"podman finds no {runtime}", hint="`ocickpt setup` says more")
    path, shown = directory / runtime, directory / "containers.conf"
    path.write_text(Launcher.of(runtime, target, sys.executable).text(), "utf-8")
    path.chmod(0o700)
    # A JSON string is a TOML basic string.
    shown.write_text(f"[engine.runtimes]\n{runtime} = [{json.dumps(str(path))}]\n", "utf-8")
    return {_OVERRIDE: str(shown)}


def _patterns() -> dict[str, str]:
    """What the script holds words against; those after a subcommand have it before them. From `command_line`."""
    verbs = [verb for verb in command_line.VALUED if verb]
    after = {verb: [f"{verb}{name}" for name in _spelled(command_line.VALUED[verb])] for verb in verbs}
    bundle = [f"create{name}" for name in _spelled([("--bundle", "-b")])]
    patterns = {
        "valued": _spelled(command_line.VALUED[""]),
        "verbs": verbs,
        "ends": [f"{verb}--" for verb in verbs],
        "helps": [f"{verb}{word}" for verb in verbs for word in ("-h", "--help", "-\\?", "--usage")],
        "bundle": bundle,
        "bundle_long": [f"{name}=*" for name in bundle],
        "valued_after": [name for verb in verbs for name in after[verb] if name not in bundle],
    }
    return {name: " | ".join(words) for name, words in patterns.items()}


def _spelled(options: Iterable[tuple[str, ...]]) -> list[str]:
    """The names of options as the runtimes take them: runc with one hyphen or two, however long they are."""
    plain = [name for each in options for name in each]
    return plain + [f"-{name}" if len(name) == len("-b") else name[1:] for name in plain]


def chooser(directory: Path, default: str) -> str:
    """The script that becomes one of the launchers in `directory`."""
    choices = [_CHOICE.format(name=name) for name in table.NAMES]
    return _CHOOSER.format(
        marker=MARKER,
        default=default,
        choices="\n".join(choices),
        config=shlex.quote(str(config.PATH)),
        directory=shlex.quote(str(directory)),
    )


def is_ours(path: Path) -> bool:
    """Whether one of the first two lines of a file is our marker."""
    try:
        with path.open("rb") as file:
            return MARKER.encode() in (file.readline(200).rstrip(b"\n"), file.readline(200).rstrip(b"\n"))
    except (FileNotFoundError, IsADirectoryError):
        return False


def read(path: Path) -> str:
    """A file's text, or none."""
    try:
        return path.read_text("utf-8", "replace")
    except OSError:
        return ""


def hook(python: str) -> str:
    """The script that OCI hooks run (``hooks/ocickpt-hook``)."""
    return _HOOK.format(marker=MARKER, python=shlex.quote(python), start=_start("hook"))


def _start(module: str) -> str:
    """How an isolated interpreter (``-I``: no PYTHONPATH, no user site, no current directory) finds shim or hook."""
    package = rendezvous.PACKAGE.resolve()
    ask = "import ocickpt; print(ocickpt.__file__)"
    try:
        found = proc.run([sys.executable, "-I", "-c", ask], check=False, timeout=30).stdout.strip()
    except OcickptError:
        found = ""
    is_found = bool(found) and Path(found).resolve().parent == package
    path = "" if is_found else f" sys.path.insert(0, {str(package.parent)!r});"
    # Not -m: what Python does for that takes a fifth of the time of all this.
    code = f"import sys;{path} from ocickpt.{module} import main; sys.exit(main(sys.argv[1:]))"
    return f"-c {shlex.quote(code)}"
