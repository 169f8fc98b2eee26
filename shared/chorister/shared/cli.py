"""The command `chorister`: it finds its sub-commands through entry points.

A sub-command is a module named in the group `chorister.commands`, with `SUMMARY` (one line) and
`main(argv) -> int`. A device without the simulation extra has fewer of them installed, not broken
ones.
"""

from __future__ import annotations

import ast
import errno
import os
import sys
from collections.abc import Sequence
from importlib.metadata import EntryPoint, entry_points, version
from importlib.util import find_spec
from pathlib import Path

from chorister.shared.console import complain, say
from chorister.shared.errors import ChoristerError

GROUP = "chorister.commands"
_PROGRAM = "chorister"
_PURPOSE = "Personalise a voice model on the device that holds the voice, together and privately."


def main(argv: Sequence[str] | None = None) -> int:
    """Run one sub-command and return its exit status: 0 done, 1 failed, 2 wrong usage."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    commands = {entry.name: entry for entry in entry_points(group=GROUP)}
    if not arguments or arguments[0] in ("-h", "--help"):
        say(_overview(_PROGRAM, _PURPOSE, commands))
        return 0 if arguments else 2
    if arguments[0] == "--version":
        say(f"chorister {version('chorister')}")
        return 0
    name, rest = arguments[0], arguments[1:]
    if name not in commands:
        complain(f"There is no command '{name}'. Known: {', '.join(sorted(commands))}.")
        return 2
    return _run(commands[name], rest)


def run_action(group: str, program: str, purpose: str, argv: Sequence[str]) -> int:
    """Run one action of a command whose actions come from several packages.

    Args:
        group: of entry points, each `module:function`; the function takes the arguments that are
            left and returns the exit status, the first line of its docstring is its summary.
        program: what is typed before the action, e.g. 'chorister consent'.
        purpose: of the command, a sentence.
        argv: what was typed after `program`.

    Raises:
        ChoristerError: as the action.
    """
    actions = {entry.name: entry for entry in entry_points(group=group)}
    if not argv or argv[0] in ("-h", "--help"):
        say(_overview(program, purpose, actions))
        return 0 if argv else 2
    if argv[0] not in actions:
        complain(f"{program}: no action '{argv[0]}'. Known: {', '.join(sorted(actions))}.")
        return 2
    return int(actions[argv[0]].load()(list(argv[1:])))


def _run(entry: EntryPoint, argv: list[str]) -> int:
    try:
        return int(entry.load().main(argv))
    except ChoristerError as error:
        complain(str(error))
        return error.exit_status
    except ModuleNotFoundError as error:
        if error.name is not None and error.name.startswith("chorister"):
            raise
        complain(
            f"'chorister {entry.name}' needs a package that is not installed. Found: no module "
            f"'{error.name}'. Install the extra that brings it; pip install 'chorister[all]' "
            "brings them all."
        )
        return 1
    except BrokenPipeError:
        # Whoever read the output has gone; the interpreter must not write to it on its way out.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS):
            raise
        complain(
            f"Files can be written where they belong. Found: {error.strerror} ({error.filename}). "
            "Check the disk's free space and the folder's permissions."
        )
        return 2
    except KeyboardInterrupt:
        complain("Interrupted. Where the command has --resume, repeat it with that.")
        return 130


def _overview(program: str, purpose: str, commands: dict[str, EntryPoint]) -> str:
    noun = "command" if program == _PROGRAM else "action"
    lines = [f"usage: {program} {noun.upper()} [OPTIONS]", "", purpose, "", f"{noun}s:"]
    width = max((len(name) for name in commands), default=0)
    for name in sorted(commands):
        lines.append(f"  {name:<{width}}  {_summary(commands[name])}")
    lines += [
        "",
        f"'{program} {noun.upper()} --help' shows options and examples.",
        "Exit status: 0 done, 1 failed, 2 wrong usage.",
    ]
    return "\n".join(lines)


def _summary(entry: EntryPoint) -> str:
    """Return a command's summary from its source: importing every command would load torch."""
    spec = find_spec(entry.module)
    if spec is None or spec.origin is None:
        return "(not installed)"
    for node in ast.parse(Path(spec.origin).read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef) and node.name == entry.attr:
            return (ast.get_docstring(node) or "").partition("\n")[0]
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "SUMMARY":
            return str(ast.literal_eval(node.value))
    return ""
