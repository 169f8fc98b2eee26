"""What is printed: nothing but errors when quiet, nothing but JSON when asked."""

from __future__ import annotations

import argparse
import json

import pytest

from chorister.shared import console


def options(*arguments):
    parser = argparse.ArgumentParser()
    console.add_output_options(parser)
    return parser.parse_args(arguments)


def talk():
    console.say("a line")
    with console.progress("Working", 3) as step:
        step()
        step(2)
    console.complain("wrong")


@pytest.mark.parametrize("option", ["--quiet", "--json"])
def test_quiet_and_json_leave_errors_only(option, capsys):
    console.apply_output_options(options(option))
    talk()
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err == "chorister: wrong\n"


def test_the_next_test_is_not_quiet_because_one_before_it_was(capsys):
    console.say("a line")
    assert capsys.readouterr().out == "a line\n"


def test_without_a_terminal_progress_is_one_line(capsys):
    console.apply_output_options(options())
    talk()
    said = capsys.readouterr()
    assert said.out == "a line\nWorking ...\n"
    assert said.err == "chorister: wrong\n"


def test_json_is_one_object_and_never_nan(capsys):
    console.apply_output_options(options("--json"))
    console.print_json({"b": 1, "a": [None]})
    assert json.loads(capsys.readouterr().out) == {"a": [None], "b": 1}
    with pytest.raises(ValueError, match="JSON compliant"):
        console.print_json({"loss": float("nan")})
    assert capsys.readouterr().out == ""
