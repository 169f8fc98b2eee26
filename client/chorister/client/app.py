"""The Flower side of a device: each message opens the device, does one step of a round, answers.

Whatever goes wrong here is answered with one word. The reason stays on the device, in its ledger:
an exception's text may hold what must not leave.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from flwr.app import Context, Error, Message
from flwr.clientapp import ClientApp
from flwr.common.constant import ErrorCode

from chorister.client import contribute
from chorister.client.device import Device, find_opener
from chorister.client.outbox import Withdrawn
from chorister.client.refusals import NotListening, check_patience, note_refusal
from chorister.shared.errors import (
    BudgetExhausted,
    ChoristerError,
    ConsentRefused,
    ProtocolViolation,
)
from chorister.shared.records import ADVERTISE, HELLO, pack, unpack

app = ClientApp()
log = logging.getLogger("chorister.client")  # stays on the device
Step = Callable[[Device, str, bytes], bytes]
_BEFORE_ADMISSION = (HELLO, ADVERTISE)
MAX_NOTE = 400  # characters of a reason in the ledger; a server may have chosen some of them


@app.query("hello")
def hello(message: Message, context: Context) -> Message:
    """Say which certificate this device has, and show that it holds the key."""
    return _answer(message, context, contribute.introduce)


@app.query("advertise")
def advertise(message: Message, context: Context) -> Message:
    """Exchange 1: apply for the round."""
    return _answer(message, context, contribute.apply)


@app.query("share")
def share(message: Message, context: Context) -> Message:
    """Exchange 2: share the round's secrets among the neighbours."""
    return _answer(message, context, contribute.share)


@app.train("contribute")
def train(message: Message, context: Context) -> Message:
    """Exchange 3: train, protect and send the masked delta."""
    return _answer(message, context, contribute.contribute)


@app.query("confirm")
def confirm(message: Message, context: Context) -> Message:
    """Exchange 4: sign the set of survivors."""
    return _answer(message, context, contribute.confirm)


@app.query("reveal")
def reveal(message: Message, context: Context) -> Message:
    """Exchange 5: give the shares that unmask the sum."""
    return _answer(message, context, contribute.reveal)


def _answer(message: Message, context: Context, step: Step) -> Message:
    exchange, round_id = message.metadata.message_type, message.metadata.group_id
    try:
        device = find_opener()(context.node_config, exchange, round_id)
    except Withdrawn as withdrawn:
        # Its key is gone: the notice is all that it can still say, and the server should hear it.
        if exchange in _BEFORE_ADMISSION:
            return Message(pack(withdrawn.notice.to_bytes()), reply_to=message)
        return _refuse(message, "consent")
    except ChoristerError as error:
        log.info("This device could not be opened. %s", error)
        return _refuse(message, "unavailable")
    except Exception:
        log.exception("This device could not be opened.")
        return _refuse(message, "unavailable")
    try:
        check_patience(device.ledger, device.now_s(), device.most_refusals)
        return Message(pack(step(device, round_id, unpack(message.content))), reply_to=message)
    except ChoristerError as error:
        _note(device, exchange, round_id, error.rule, error.found)
        if isinstance(error, ProtocolViolation):
            _forget(device, round_id)
        return _refuse(message, _word(error))
    except Exception as error:
        log.exception("Exchange %s failed.", exchange)
        _note(device, exchange, round_id, "the device works", type(error).__name__)
        return _refuse(message, "failed")


def _note(device: Device, exchange: str, round_id: str, rule: str, found: str) -> None:
    """Put a refusal into the device's ledger; what goes wrong with that stays here as well."""
    try:
        note_refusal(
            device.ledger, device.now_s(), device.most_refusals, exchange=exchange,
            round=round_id[:MAX_NOTE], rule=rule[:MAX_NOTE], found=found[:MAX_NOTE],
        )  # fmt: skip
    except Exception:
        log.exception("A refusal could not be noted in the ledger.")


def _forget(device: Device, round_id: str) -> None:
    """End a round on this device after a violation; what goes wrong with that stays here too."""
    try:
        device.rounds.forget(round_id)
    except Exception:
        log.exception("A round's secrets could not be deleted.")


def _word(error: ChoristerError) -> str:
    if isinstance(error, ConsentRefused):
        return "consent"
    if isinstance(error, NotListening):
        return "unavailable"
    return "budget" if isinstance(error, BudgetExhausted) else "protocol"


def _refuse(message: Message, word: str) -> Message:
    return Message(Error(ErrorCode.CLIENT_APP_RAISED_EXCEPTION, word), reply_to=message)
