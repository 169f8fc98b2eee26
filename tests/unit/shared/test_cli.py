"""The command: exit statuses, errors in one line, and a help that loads nothing heavy."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace

import pytest

from chorister.shared import cli
from chorister.shared.errors import BadLedger, BadSettings


def entry(main, name="do"):
    return SimpleNamespace(
        name=name,
        module="chorister.shared.cli",
        attr="",
        load=lambda: SimpleNamespace(main=main),
    )


@pytest.fixture
def install(monkeypatch):
    def with_command(main):
        monkeypatch.setattr(cli, "entry_points", lambda group: [entry(main)])

    return with_command


def fail(error):
    def main(argv):
        raise error

    return main


def test_an_unknown_command_is_wrong_usage_and_lists_the_known(install, capsys):
    install(lambda argv: 0)
    assert cli.main(["sing"]) == 2
    assert capsys.readouterr().err == "chorister: There is no command 'sing'. Known: do.\n"


def test_no_command_shows_the_help_and_is_wrong_usage(install, capsys):
    install(lambda argv: 0)
    assert cli.main([]) == 2
    assert cli.main(["--help"]) == 0
    assert "usage: chorister COMMAND" in capsys.readouterr().out


def test_a_command_gets_the_rest_and_gives_the_status(install):
    seen = []
    install(lambda argv: seen.append(argv) or 1)
    assert cli.main(["do", "--it", "now"]) == 1
    assert seen == [["--it", "now"]]


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (BadSettings("The rule.", "this", "Do that."), 2),
        (BadLedger("The rule.", "this", "Do that."), 1),
    ],
)
def test_an_error_of_ours_is_one_line_and_a_status(install, capsys, error, status):
    install(fail(error))
    assert cli.main(["do"]) == status
    assert capsys.readouterr().err == "chorister: The rule. Found: this. Do that.\n"


def test_a_missing_package_says_what_to_install(install, capsys):
    install(fail(ModuleNotFoundError("No module named 'torch'", name="torch")))
    assert cli.main(["do"]) == 1
    said = capsys.readouterr().err
    assert "no module 'torch'" in said
    assert "pip install 'chorister[all]'" in said


@pytest.mark.parametrize(
    "error",
    [ModuleNotFoundError("No", name="chorister.client.gone"), ZeroDivisionError()],
)
def test_a_defect_shows_its_traceback(install, error):
    install(fail(error))
    with pytest.raises(type(error)):
        cli.main(["do"])


def test_an_interrupt_is_said_and_no_traceback(install, capsys):
    install(fail(KeyboardInterrupt()))
    assert cli.main(["do"]) == 130
    said = capsys.readouterr().err
    assert said.startswith("chorister: Interrupted.")
    assert said.count("\n") == 1


def test_a_command_whose_module_is_not_there_is_listed_as_such(monkeypatch, capsys):
    missing = SimpleNamespace(name="gone", module="chorister.shared.gone")
    monkeypatch.setattr(cli, "entry_points", lambda group: [missing])
    assert cli.main(["--help"]) == 0
    assert "gone  (not installed)" in capsys.readouterr().out


SCRIPT = """
import sys
from chorister.shared.cli import main
status = main(sys.argv[1:])
heavy = {"torch", "flwr", "opacus", "numpy", "scipy", "onnxruntime", "ray"} & set(sys.modules)
sys.stderr.write(f"{status} {sorted(heavy)}")
"""


@pytest.mark.parametrize("argument", ["--help", "--version"])
def test_help_and_version_import_nothing_heavy(argument):
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, argument], capture_output=True, text=True, check=True
    )
    assert done.stderr == "0 []"
    assert "chorister" in done.stdout


def act(argv):
    """Act on what is there.

    More about it.
    """
    return len(argv)


@pytest.fixture
def action(monkeypatch):
    found = SimpleNamespace(name="act", module="chorister.shared.cli", attr="run_action")
    monkeypatch.setattr(cli, "entry_points", lambda group: [found])
    found.load = lambda: act


def test_an_action_gets_the_rest_and_gives_the_status(action):
    assert cli.run_action("group", "chorister do", "It does.", ["act", "a", "b"]) == 2


def test_an_unknown_action_is_wrong_usage_and_lists_the_known(action, capsys):
    assert cli.run_action("group", "chorister do", "It does.", ["rest"]) == 2
    assert "chorister do: no action 'rest'. Known: act." in capsys.readouterr().err


def test_the_actions_are_summed_up_by_the_first_line_of_their_docstrings(action, capsys):
    assert cli.run_action("group", "chorister do", "It does.", []) == 2
    assert cli.run_action("group", "chorister do", "It does.", ["--help"]) == 0
    shown = capsys.readouterr().out
    assert "usage: chorister do ACTION" in shown
    assert "act  Run one action of a command" in shown
