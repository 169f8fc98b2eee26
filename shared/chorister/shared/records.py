"""Protocol messages in Flower's records: one ConfigRecord with one field of bytes.

Flower carries bytes and nothing else, so that what leaves a device is exactly what the protocol
encodes.
"""

from __future__ import annotations

from flwr.app import ConfigRecord, RecordDict

from chorister.shared.errors import BadMessage

RECORD = "chorister"
FIELD = "message"

# The exchanges of a round, in order, as Flower message types. 'hello' happens once a device.
HELLO = "query.hello"
ADVERTISE = "query.advertise"
SHARE = "query.share"
CONTRIBUTE = "train.contribute"
CONFIRM = "query.confirm"
REVEAL = "query.reveal"
ROUND = (ADVERTISE, SHARE, CONTRIBUTE, CONFIRM, REVEAL)


def pack(message: bytes) -> RecordDict:
    """Return the record that carries encoded bytes."""
    return RecordDict({RECORD: ConfigRecord({FIELD: message})})


def unpack(content: RecordDict) -> bytes:
    """Return the encoded bytes in a record.

    Raises:
        BadMessage: the record is not of this form.
    """
    record = content.get(RECORD)
    alone = isinstance(record, ConfigRecord) and len(content) == len(record) == 1
    value = record.get(FIELD) if isinstance(record, ConfigRecord) and alone else None
    if not isinstance(value, bytes):
        raise BadMessage(
            f"A message is one record '{RECORD}' with the bytes '{FIELD}'.",
            "another record",
            "Drop the message.",
        )
    return value
