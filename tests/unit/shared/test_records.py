"""Flower's record holds one field of bytes; anything beside it is refused."""

from __future__ import annotations

import pytest
from flwr.app import ArrayRecord, ConfigRecord, MetricRecord, RecordDict

from chorister.shared.errors import BadMessage
from chorister.shared.records import FIELD, RECORD, pack, unpack


def test_bytes_come_back():
    for message in (b"", b"\x00\xff", bytes(10_000)):
        assert unpack(pack(message)) == message


@pytest.mark.parametrize(
    "content",
    [
        RecordDict(),
        RecordDict({"other": ConfigRecord({FIELD: b"x"})}),
        RecordDict({RECORD: ConfigRecord({"other": b"x"})}),
        RecordDict({RECORD: ConfigRecord({FIELD: "x"})}),
        RecordDict({RECORD: ConfigRecord({FIELD: [b"x"]})}),
        RecordDict({RECORD: ConfigRecord({FIELD: b"x", "loss": 0.5})}),
        RecordDict({RECORD: MetricRecord({FIELD: 1})}),
        RecordDict({RECORD: ArrayRecord()}),
        RecordDict({RECORD: ConfigRecord({FIELD: b"x"}), "more": MetricRecord({"loss": 0.5})}),
    ],
)
def test_another_record_is_refused(content):
    with pytest.raises(BadMessage):
        unpack(content)
