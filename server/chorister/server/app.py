"""The Flower side of the server: rounds until there are enough, messages as Flower carries them."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence

from flwr.app import Context, Message
from flwr.serverapp import Grid, ServerApp

from chorister.server.operator import Operator, open_operator
from chorister.server.recovery import settle_unfinished
from chorister.server.round import run_round
from chorister.server.rounds import append_round, read_rounds
from chorister.server.statement import state_terms
from chorister.shared.errors import ChoristerError
from chorister.shared.exchanges import CHALLENGE_BYTES, Introduction
from chorister.shared.records import HELLO, pack, unpack
from chorister.shared.signing import Certificate

app = ServerApp()
FIRST_POLL_S, MOST_POLL_S, POLL_GROWTH = 0.25, 3.0, 1.3


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run the rounds that are still to do; a server that was stopped goes on after the last one."""
    operator = open_operator()
    network = FlowerNetwork(grid, operator)
    path = operator.rounds_path
    state_terms(operator)
    settle_unfinished(operator)
    for number in range(len(read_rounds(path)) + 1, operator.settings.rounds + 1):
        if not operator.may_begin(number, lambda: len(list(grid.get_node_ids()))):
            break
        record = run_round(network, operator, number)
        operator.on_round(record)
        append_round(path, record)


class FlowerNetwork:
    """Devices behind a Flower grid.

    Args:
        grid: Flower's.
        operator: for the deadline, the authority and the clock.
    """

    def __init__(self, grid: Grid, operator: Operator) -> None:
        self._grid = grid
        self._operator = operator
        self._randomness = operator.randomness.fork("hello")
        self._nodes: dict[str, int] = {}
        self._certificates: dict[str, Certificate] = {}

    def discover(self) -> Mapping[str, Certificate]:
        """Return the certificates of all nodes that answer, by device id.

        A node shows that it holds the certified key, so that nobody takes another device's place.
        """
        present = set(self._grid.get_node_ids())
        self._nodes = {device: node for device, node in self._nodes.items() if node in present}
        new = sorted(present - set(self._nodes.values()))
        challenges = {node: self._randomness.bytes(CHALLENGE_BYTES) for node in new}
        for node, content in self._ask(HELLO, "", challenges)[0].items():
            certificate = _certificate(content, challenges[node], self._operator)
            if certificate is not None:
                self._nodes[certificate.device_id] = node
                self._certificates[certificate.device_id] = certificate
        return {device: self._certificates[device] for device in sorted(self._nodes)}

    def exchange(
        self, exchange: str, round_id: str, requests: Mapping[str, bytes]
    ) -> tuple[dict[str, bytes], dict[str, str]]:
        """Send each device its message and wait for the answers until the stage's deadline."""
        by_node = {self._nodes[device]: request for device, request in requests.items()}
        answers, reasons = self._ask(exchange, round_id, by_node)
        named = {self._nodes[device]: device for device in requests}
        return (
            {named[node]: answer for node, answer in sorted(answers.items())},
            {named[node]: reason for node, reason in sorted(reasons.items())},
        )

    def _ask(
        self, message_type: str, group_id: str, requests: Mapping[int, bytes]
    ) -> tuple[dict[int, bytes], dict[int, str]]:
        if not requests:
            return {}, {}  # a SuperLink takes no empty list
        deadline_s = self._operator.settings.aggregation.stage_deadline_s
        messages = [
            Message(pack(body), node, message_type, ttl=deadline_s, group_id=group_id)
            for node, body in requests.items()
        ]
        answers: dict[int, bytes] = {}
        reasons = dict.fromkeys(requests, "no answer")
        for reply in self._send_and_receive(messages, deadline_s):
            node = reply.metadata.src_node_id
            if node not in reasons:
                continue
            if reply.has_error():
                # A device's own words are not trusted to be short or harmless.
                reasons[node] = _known_reason(reply.error.reason)
                continue
            try:
                answers[node] = unpack(reply.content)
                del reasons[node]
            except ChoristerError:
                reasons[node] = "a malformed answer"
        return answers, reasons

    def _send_and_receive(
        self, messages: Sequence[Message], deadline_s: float
    ) -> Iterator[Message]:
        """Give the replies as they come, until the deadline.

        Flower's own looks every 3 s, which is most of a round where devices answer at once.
        """
        waiting = {i for i in self._grid.push_messages(messages) if i}
        end, pause_s = time.monotonic() + deadline_s, FIRST_POLL_S
        while waiting:
            replies = list(self._grid.pull_messages(waiting))
            waiting -= {reply.metadata.reply_to_message_id for reply in replies}
            yield from replies
            left_s = end - time.monotonic()
            if not waiting or left_s <= 0:
                return
            time.sleep(min(pause_s, left_s))
            pause_s = FIRST_POLL_S if replies else min(pause_s * POLL_GROWTH, MOST_POLL_S)


def _known_reason(said: str | None) -> str:
    known = ("consent", "budget", "protocol", "unavailable", "failed")
    return next((word for word in known if said == word), "failed")


def _certificate(content: bytes, challenge: bytes, operator: Operator) -> Certificate | None:
    if operator.withdrawals.hear(content, operator.now_s()) is not None:
        return None
    try:
        introduction = Introduction.from_bytes(content)
        introduction.check(challenge)
        certificate = introduction.certificate
        certificate.check(operator.authority, operator.settings.name, operator.now_s())
    except ChoristerError as error:
        operator.ledger.append("refusal", exchange="hello", reason=error.found)
        return None
    return certificate
