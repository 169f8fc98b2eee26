"""The errors that Chorister raises on purpose.

Every message has three parts: the rule, what was found, and what to do next. A command turns any
`ChoristerError` into one line on standard error; anything else is a defect and shows its traceback.
"""

from __future__ import annotations


class ChoristerError(Exception):
    """Base of every error that a user or a peer can cause.

    Args:
        rule: what was expected, as a short statement.
        found: what was found instead. Never holds a secret.
        advice: what to do next, as an instruction.
    """

    exit_status = 1

    def __init__(self, rule: str, found: str, advice: str) -> None:
        super().__init__(f"{rule} Found: {found}. {advice}")
        self.rule = rule
        self.found = found
        self.advice = advice


class UsageError(ChoristerError):
    """The command line, a setting or an input file is wrong: nothing was started."""

    exit_status = 2


class BadSettings(UsageError):
    """A settings or scenario file holds an unknown key or a value out of range."""


class BadAudio(UsageError):
    """A recording cannot be used: unreadable, empty, silent, clipped, not finite or too long."""


class BadCorpus(UsageError):
    """A data folder cannot serve: missing, empty, or with too few usable speakers."""


class BadWeights(UsageError):
    """A weights or voice file has a wrong digest, format or shape."""


class BadMessage(ChoristerError):
    """A protocol message could not be decoded or does not fit the stage that it came in."""


class BadSignature(BadMessage):
    """A signature or certificate does not verify."""


class ProtocolViolation(ChoristerError):
    """A peer broke the protocol; the round ends here."""


class RoundAborted(ChoristerError):
    """A round cannot be finished (too few survivors, for one); its budget follows the rules."""


class BudgetExhausted(ChoristerError):
    """A privacy budget does not cover the next step: refused before anything was trained."""


class ConsentRefused(ChoristerError):
    """No valid consent covers this use of a voice."""


class BadAccounting(ChoristerError):
    """Two accountants contradict each other, so no privacy figure can be stated."""


class BadLedger(ChoristerError):
    """A ledger does not verify."""
