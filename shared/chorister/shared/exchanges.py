"""What server and device say to each other around the secure aggregation's own messages.

    hello       server: a challenge                    device: its certificate, signed challenge
    advertise   server: terms, task, checkpoint        device: advertisement, consent token
    share       server: roster                         device: share bundle
    contribute  server: shares for it, shared adapter  device: masked input
    confirm     server: survivors                      device: vote
    reveal      server: votes                          device: shares that unmask the sum

The last four carry messages of `chorister.shared.secagg.messages` as they are; `contribute` adds
the shared adapter, whose digest the signed terms name.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from chorister.shared import codec
from chorister.shared.errors import BadLedger, BadMessage, BadSignature
from chorister.shared.privacy.ledger import Checkpoint
from chorister.shared.secagg.terms import MAX_DIMENSION, MAX_TERMS_BYTES
from chorister.shared.secagg.wire import MAX_MESSAGE_BYTES
from chorister.shared.settings import SegmentPrivacy, Settings, TrainingTask
from chorister.shared.signing import Certificate, SigningKey
from chorister.shared.types import Adapter

HELLO_LABEL = "chorister/1 hello"
CHALLENGE_BYTES = 32
MAX_INVITATION_BYTES = MAX_TERMS_BYTES + 4096
MAX_APPLICATION_BYTES = MAX_MESSAGE_BYTES["advertisement"] + 2048
MAX_ASSIGNMENT_BYTES = MAX_MESSAGE_BYTES["inbox"] + 4 * MAX_DIMENSION + 1024


class RoundTask(Settings):
    """What the server asks a device to train, beside the terms of the aggregation.

    Attributes:
        training: steps, batch, learning rate.
        segment_privacy: clip and noise of a segment; None trains without DP-SGD (baselines only).
    """

    training: TrainingTask
    segment_privacy: SegmentPrivacy | None


@dataclass(frozen=True, slots=True)
class Introduction:
    """A device's answer to a hello: who it is, and that it holds the key.

    Attributes:
        certificate: the enrolment authority's word for its key.
        signature: of the server's challenge.
    """

    certificate: Certificate
    signature: bytes

    @classmethod
    def make(cls, key: SigningKey, certificate: Certificate, challenge: bytes) -> Introduction:
        """Return the answer to a challenge.

        Raises:
            BadMessage: the challenge is not of 32 bytes.
        """
        if len(challenge) != CHALLENGE_BYTES:
            raise BadMessage(
                f"A challenge has {CHALLENGE_BYTES} bytes.",
                f"{len(challenge)} bytes",
                "Drop the message.",
            )
        return cls(certificate, key.sign(HELLO_LABEL, challenge))

    def check(self, challenge: bytes) -> None:
        """Return if the certificate's own key signed the challenge.

        Raises:
            BadSignature: it did not.
        """
        self.certificate.device_key.verify(HELLO_LABEL, challenge, self.signature)

    def to_bytes(self) -> bytes:
        """Return the canonical bytes."""
        return codec.encode(
            {"certificate": self.certificate.to_plain(), "signature": self.signature}
        )

    @classmethod
    def from_bytes(cls, data: bytes) -> Introduction:
        """Return the introduction in canonical bytes; nothing is verified yet.

        Raises:
            BadMessage: it is not one.
        """
        kinds = {"certificate": dict, "signature": bytes}
        plain = codec.fields(codec.decode(data, max_bytes=1024), kinds, "An introduction")
        return cls(Certificate.from_plain(plain["certificate"]), plain["signature"])


@dataclass(frozen=True, slots=True)
class Invitation:
    """The server's first message of a round.

    Attributes:
        terms: encoded terms of the aggregation.
        task: what to train.
        witness: the server's newest checkpoint of its ledger. The devices keep it, so that the
            server cannot cut off or rewrite what came before without all of them noticing.
    """

    terms: bytes
    task: RoundTask
    witness: Checkpoint

    def to_bytes(self) -> bytes:
        """Return the canonical bytes."""
        plain: dict[str, Any] = {
            "terms": self.terms,
            "task": self.task.model_dump(mode="json"),
            "witness": self.witness.to_plain(),
        }
        return codec.encode(plain)

    @classmethod
    def from_bytes(cls, data: bytes) -> Invitation:
        """Return the invitation in canonical bytes.

        Raises:
            BadMessage: it is not one, or its checkpoint's signature does not verify.
            BadSettings: the task has a value out of range.
        """
        kinds = {"terms": bytes, "task": dict, "witness": dict}
        plain = codec.fields(
            codec.decode(data, max_bytes=MAX_INVITATION_BYTES), kinds, "An invitation"
        )
        try:
            witness = Checkpoint.from_plain(plain["witness"])
            witness.check()
        except (BadLedger, BadSignature):
            raise BadMessage(
                "An invitation holds a signed checkpoint of the server's ledger.",
                "something else",
                "Drop the message.",
            ) from None
        return cls(plain["terms"], RoundTask.parse(plain["task"], "the round's task"), witness)


@dataclass(frozen=True, slots=True)
class Application:
    """A device's answer to an invitation.

    Attributes:
        advertisement: encoded advertisement of the secure aggregation.
        consent_token: encoded proof that a consent covers this round.
    """

    advertisement: bytes
    consent_token: bytes

    def to_bytes(self) -> bytes:
        """Return the canonical bytes."""
        return codec.encode(
            {"advertisement": self.advertisement, "consent_token": self.consent_token}
        )

    @classmethod
    def from_bytes(cls, data: bytes) -> Application:
        """Return the application in canonical bytes.

        Raises:
            BadMessage: it is not one.
        """
        kinds = {"advertisement": bytes, "consent_token": bytes}
        plain = codec.fields(
            codec.decode(data, max_bytes=MAX_APPLICATION_BYTES), kinds, "An application"
        )
        return cls(plain["advertisement"], plain["consent_token"])


@dataclass(frozen=True, slots=True)
class Assignment:
    """The server's message that starts a device's training.

    Attributes:
        inbox: encoded shares that the other devices sent to this one.
        adapter: the shared adapter to start from.
    """

    inbox: bytes
    adapter: Adapter

    def to_bytes(self) -> bytes:
        """Return the canonical bytes."""
        values = self.adapter.values.astype("<f4").tobytes()
        return codec.encode({"inbox": self.inbox, "spec": self.adapter.spec, "values": values})

    @classmethod
    def from_bytes(cls, data: bytes) -> Assignment:
        """Return the assignment in canonical bytes.

        Raises:
            BadMessage: it is not one, or the adapter is not finite.
        """
        kinds = {"inbox": bytes, "spec": str, "values": bytes}
        plain = codec.fields(
            codec.decode(data, max_bytes=MAX_ASSIGNMENT_BYTES), kinds, "An assignment"
        )
        if len(plain["values"]) % 4:
            raise BadMessage(
                "An adapter is float32 values.",
                f"{len(plain['values'])} bytes",
                "Drop the message.",
            )
        values = np.frombuffer(plain["values"], dtype="<f4").astype(np.float32)
        if not np.all(np.isfinite(values)):
            raise BadMessage(
                "A shared adapter is finite.", "a NaN or an infinity", "Drop the message."
            )
        return cls(plain["inbox"], Adapter(values, plain["spec"]))
