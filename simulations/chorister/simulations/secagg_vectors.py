"""Test vectors of the secure aggregation, good and bad: how they are made and how they are checked.

    python -m chorister.simulations.secagg_vectors FILE...

writes them. Everything in them follows from fixed secrets, so another implementation of
docs/protocol.md must arrive at the same bytes, and must refuse every bad message.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cbor2
import numpy as np

from chorister.shared.errors import BadMessage
from chorister.shared.secagg.keys import (
    AgreementKey,
    Binding,
    commit_seed,
    commit_share,
    open_sealed,
    seal,
)
from chorister.shared.secagg.masks import expand_mask
from chorister.shared.secagg.members import Members
from chorister.shared.secagg.messages import (
    Advertisement,
    Inbox,
    MaskedInput,
    Reveal,
    Roster,
    RoundTerms,
    ShareBundle,
    Survivors,
    SurvivorVote,
    UnmaskRequest,
    view_digest,
)
from chorister.shared.secagg.packing import pack, unpack
from chorister.shared.secagg.rotation import rotate, rotation_seed
from chorister.shared.secagg.sharing import reconstruct, split
from chorister.shared.types import MaskedDelta
from chorister.simulations.randomness import SimulatedRandomness
from chorister.simulations.secagg_rehearsal import (
    Network,
    Rehearsal,
    rehearsal_terms,
)

FILE = Path(__file__).with_name("secagg_vectors.json")
_DIMENSION, _BITS = 3, 32
_DECODERS: dict[str, Callable[[bytes], Any]] = {
    "terms": RoundTerms.from_bytes,
    "advertisement": Advertisement.from_bytes,
    "roster": Roster.from_bytes,
    "bundle": ShareBundle.from_bytes,
    "inbox": Inbox.from_bytes,
    "masked": lambda data: MaskedInput.from_bytes(data, _DIMENSION, _BITS),
    "survivors": Survivors.from_bytes,
    "vote": SurvivorVote.from_bytes,
    "unmask": UnmaskRequest.from_bytes,
    "reveal": Reveal.from_bytes,
}
_DOWN = {"share": "roster", "mask": "inbox", "confirm": "survivors", "reveal": "unmask"}
_UP = {
    "advertise": "advertisement", "share": "bundle", "mask": "masked", "confirm": "vote",
    "reveal": "reveal",
}  # fmt: skip


def load() -> dict[str, Any]:
    """Return the vectors that this package ships."""
    vectors: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8"))
    return vectors


def make() -> dict[str, Any]:
    """Return the vectors, computed anew."""
    messages, total = _round()
    return {
        "protocol": 1,
        "sharing": _sharing(),
        "keys": _keys(),
        "masks": _masks(),
        "packing": _packing(),
        "rotation": _rotation(),
        "round": {"dimension": _DIMENSION, "messages": messages, "sum": total},
        "refused": _refused({name: bytes.fromhex(data) for name, data in messages}),
    }


def check(vectors: dict[str, Any]) -> tuple[int, list[str]]:
    """Return how many vectors were checked, and what failed.

    Args:
        vectors: as `make` writes them.
    """
    made, failures, checked = make(), [], 0
    for group in ("sharing", "keys", "masks", "packing", "rotation"):
        for name, expected in vectors[group].items():
            checked += 1
            if made[group].get(name) != expected:
                failures.append(f"{group}: {name}")
    for name, data in vectors["round"]["messages"]:
        checked += 1
        if not _same(name, bytes.fromhex(data)):
            failures.append(f"round: {name} does not decode to its own bytes")
    checked += 2
    if made["round"] != vectors["round"]:
        failures.append("round: other messages, or another sum")
    shares = {i: bytes.fromhex(s) for i, s in enumerate(vectors["sharing"]["shares"])}
    if reconstruct(shares, 3).hex() != vectors["sharing"]["secret"]:
        failures.append("sharing: shares of another secret")
    for name, data, why in vectors["refused"]:
        checked += 1
        try:
            _DECODERS[name](bytes.fromhex(data))
        except BadMessage:
            continue
        failures.append(f"refused: {name} with {why} was accepted")
    return checked, failures


def _same(name: str, data: bytes) -> bool:
    try:
        return bool(_DECODERS[name](data).to_bytes() == data)
    except BadMessage:
        return False


def _sharing() -> dict[str, Any]:
    secret = bytes(range(32))
    shares = split(secret, range(5), 3, SimulatedRandomness(0, "vectors"))
    return {"secret": secret.hex(), "threshold": 3, "shares": [s.hex() for s in shares.values()]}


def _keys() -> dict[str, Any]:
    low, high = AgreementKey(b"\x01" * 32), AgreementKey(b"\x02" * 32)
    identity_low, identity_high = b"\x03" * 32, b"\x04" * 32
    terms, roster, sharers = b"\x05" * 32, b"\x06" * 32, Members.of([0, 1, 9])
    view = view_digest(terms, roster, sharers)
    agreed = low.agree(high.public())
    sealing = Binding(terms, roster).sealing_key(agreed, identity_low, identity_high)
    sealed = seal(sealing, b"\x07" * 66)
    if open_sealed(sealing, sealed) != b"\x07" * 66:
        raise ArithmeticError("sealed shares do not open")
    return {
        "public_low": low.public().hex(),
        "public_high": high.public().hex(),
        "agreed": agreed.hex(),
        "members": sharers.to_bytes().hex(),
        "view": view.hex(),
        "sealing_key": sealing.hex(),
        "sealed": sealed.hex(),
        "mask_seed": Binding(terms, view).mask_seed(agreed, identity_low, identity_high).hex(),
        "seed_commitment": commit_seed(terms, identity_low, b"\x08" * 32).hex(),
        "share_commitment": commit_share("seed", roster, 1, 2, b"\x00" + b"\x09" * 32).hex(),
        "key_share_commitment": commit_share("key", roster, 1, 2, b"\x00" + b"\x09" * 32).hex(),
    }


def _masks() -> dict[str, Any]:
    seed = b"\x0a" * 32
    return {
        f"d={d} bits={bits}": hashlib.sha256(
            expand_mask(seed, d, bits).astype("<u4").tobytes()
        ).hexdigest()
        for d, bits in ((1, 32), (5, 32), (70_000, 32), (5, 20), (5, 16))
    } | {"first": [int(v) for v in expand_mask(seed, 4, 32)]}


def _packing() -> dict[str, Any]:
    values = np.array([0, 1, 2, 65_535, 40_000], dtype=np.uint32)
    packed = {}
    for bits in (16, 17, 20, 32):
        data = pack(MaskedDelta(values, bits))
        if not np.array_equal(unpack(data, 5, bits).values, values):
            raise ArithmeticError("packing is not reversible")
        packed[f"bits={bits}"] = data.hex()
    return packed


def _rotation() -> dict[str, Any]:
    seed = rotation_seed(b"\x06" * 32)
    rotated = {
        f"d={d}": [round(float(v), 9) for v in rotate(np.arange(1.0, d + 1), seed)]
        for d in (1, 3, 4, 5, 20)
    }
    return {"seed": seed.hex(), **rotated}


def _round() -> tuple[list[list[str]], list[int]]:
    """Return one device's messages in a round of four, one of which drops out, and the sum."""
    terms = rehearsal_terms(4, _DIMENSION, dropout=0.25)
    seen = {"terms": terms.to_bytes()}
    watched = "device-0000"

    class Tap(Network):
        def down(self, stage: str, peer: str, message: bytes) -> bytes | None:
            if peer == watched and stage in _DOWN:
                seen[_DOWN[stage]] = message
            return super().down(stage, peer, message)

        def up(self, stage: str, peer: str, message: bytes) -> bytes | None:
            if peer == watched:
                seen[_UP[stage]] = message
            return super().up(stage, peer, message)

    rehearsal = Rehearsal(terms, 0)
    deltas = {f"device-{i:04}": np.array([i, -i, 7]) for i in range(4)}
    aggregate = rehearsal.run(deltas, Tap({"mask": {"device-0002"}}))
    return [[name, data.hex()] for name, data in seen.items()], [int(v) for v in aggregate.values]


def _refused(good: dict[str, bytes]) -> list[list[str]]:
    """Return messages that every implementation refuses: name, bytes, what is wrong with them."""
    bad: list[tuple[str, bytes, str]] = []
    for name, data in good.items():
        plain = cbor2.loads(data)
        bad += [
            (name, b"", "nothing"),
            (name, data[:-1], "the last byte missing"),
            (name, data + b"\x00", "a byte too many"),
            (name, b"\xd9\xd9\xf7" + data, "a tag"),
            (name, b"\x9a\x80\x00\x00\x00", "2**31 items announced"),
            (name, b"\x5a\x80\x00\x00\x00", "2**31 bytes announced"),
            (name, b"\x81" * 2000 + b"\x00", "deep nesting"),
        ]
        if isinstance(plain, list):
            # A request with one vote less is a message; devices count the votes.
            if name != "unmask":
                bad.append((name, _dump(plain[:-1]), "a field missing"))
            bad += [
                (name, _dump([*plain, 0]), "a field too many"),
                (name, _dump([plain[0] + "x", *plain[1:]]), "another name"),
                (name, b"\x98" + bytes([len(plain)]) + data[1:], "a longer spelling of a length"),
            ]
        else:
            bad += [
                (name, _dump({**plain, "protocol": 2}), "another protocol version"),
                (name, _dump({**plain, "client_variance": 17}), "less noise than stated"),
                (name, _dump({**plain, "gamma": 0.5}), "gamma out of range"),
                (name, _dump({**plain, "gamma": float("nan")}), "gamma not a number"),
                (name, _dump({**plain, "round": -1}), "a negative round"),
                (name, _dump({**plain, "extra": 0}), "a field too many"),
            ]
    roster = cbor2.loads(good["roster"])
    bad.append(("roster", _dump([*roster[:2], roster[2][::-1]]), "devices out of order"))
    bad.append(("roster", _dump([*roster[:2], [roster[2][0]] * 2]), "a device twice"))
    bundle = cbor2.loads(good["bundle"])
    bad.append(("bundle", _dump([*bundle[:2], bundle[2][::-1], bundle[3]]), "shares out of order"))
    short = [[s[0], s[1][:-1], *s[2:]] for s in bundle[2]]
    bad.append(("bundle", _dump([*bundle[:2], short, bundle[3]]), "shares of 81 bytes"))
    inbox = cbor2.loads(good["inbox"])
    spare = [*inbox[:2], inbox[2] + b"\x00", inbox[3]]
    bad.append(("inbox", _dump(spare), "a spare byte in a bit map"))
    far = [*inbox[:3], [[4096, inbox[3][0][1]]]]
    bad.append(("inbox", _dump(far), "an index beyond every roster"))
    masked = cbor2.loads(good["masked"])
    longer = [masked[0], masked[1], masked[2] + bytes(4), masked[3]]
    bad.append(("masked", _dump(longer), "a value too many"))
    return [[name, data.hex(), why] for name, data, why in bad]


def _dump(plain: object) -> bytes:
    return cbor2.dumps(plain, canonical=True)


def _write(paths: list[str]) -> None:
    text = json.dumps(make(), indent=1) + "\n"
    for path in paths:
        Path(path).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    _write(sys.argv[1:] or [str(FILE)])
