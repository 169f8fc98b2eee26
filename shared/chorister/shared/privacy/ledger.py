"""The ledger's rules: an append-only chain of entries and the signed checkpoints over it. No I/O.

An entry is one line: canonical JSON (sorted keys, no spaces, ASCII) of index, time_s, kind, fields
and `previous`, the SHA-256 of the line before it. A line has exactly one spelling, so a verifier in
any language hashes the bytes as they are. The chain shows edits, removals and reordering; only a
checkpoint that is kept elsewhere shows that the end was cut off or that all was written anew.

After: certificate transparency's signed tree heads (RFC 6962), with a chain in place of a tree.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from chorister.shared import codec
from chorister.shared.errors import BadLedger, BadSignature
from chorister.shared.signing import SigningKey, VerifyKey

FORMAT = 1
KINDS = frozenset(
    {
        "genesis", "consent", "admission", "round", "survivors", "budget", "export", "conversion",
        "refusal", "withdrawal", "checkpoint", "note",
    }
)  # fmt: skip
CHECKPOINT = "chorister/1 ledger checkpoint"
NOTHING_BEFORE = hashlib.sha256(b"chorister/1 ledger").hexdigest()
MAX_LINE_BYTES = 2**22

# One encoder for all lines: verifying spells every line again.
_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False)

Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of a ledger.

    Attributes:
        index: position, from 0.
        time_s: Unix time by the writer's clock (a simulation's own, in a simulation).
        kind: one of `KINDS`.
        fields: plain JSON; no voice data, no device's own metrics.
        previous: SHA-256 of the line before, 64 hexadecimal digits.
    """

    index: int
    time_s: int
    kind: str
    fields: Mapping[str, Json]
    previous: str

    def line(self) -> bytes:
        """Return the one spelling of this entry, without the newline.

        Raises:
            ValueError: a float in `fields` is not finite.
            TypeError: `fields` is not plain JSON.
        """
        plain = {
            "index": self.index,
            "time_s": self.time_s,
            "kind": self.kind,
            "fields": dict(self.fields),
            "previous": self.previous,
        }
        return _spell(plain)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A signed statement of what a ledger was up to one entry.

    Attributes:
        ledger: digest of the ledger's first line, which names the ledger.
        index: the last entry that it covers.
        digest: SHA-256 of that entry's line.
        key: who signed.
        signature: over the other fields.
    """

    ledger: str
    index: int
    digest: str
    key: VerifyKey
    signature: bytes

    @classmethod
    def sign(cls, key: SigningKey, ledger: str, index: int, digest: str) -> Checkpoint:
        """Return a checkpoint signed with a key."""
        body = codec.encode({"ledger": ledger, "index": index, "digest": digest})
        return cls(ledger, index, digest, key.verify_key(), key.sign(CHECKPOINT, body))

    def check(self) -> None:
        """Return if the signature is the named key's.

        Raises:
            BadSignature: it is not.
        """
        body = codec.encode({"ledger": self.ledger, "index": self.index, "digest": self.digest})
        self.key.verify(CHECKPOINT, body, self.signature)

    def to_plain(self) -> dict[str, Json]:
        """Return the checkpoint as plain JSON, for the ledger and for keeping elsewhere."""
        return {
            "ledger": self.ledger,
            "index": self.index,
            "digest": self.digest,
            "key": self.key.raw.hex(),
            "signature": self.signature.hex(),
        }

    @classmethod
    def from_plain(cls, plain: Any) -> Checkpoint:
        """Return the checkpoint in plain JSON; nothing is verified yet.

        Raises:
            BadLedger: other fields or other types, a digest that is not one, or a negative index.
        """
        kinds = {"ledger": str, "index": int, "digest": str, "key": str, "signature": str}
        try:
            if plain.keys() != kinds.keys() or any(
                type(plain[k]) is not t for k, t in kinds.items()
            ):
                raise ValueError
            # A device writes a server's checkpoint into its ledger: nothing in it is of any length.
            if not (_is_digest(plain["ledger"]) and _is_digest(plain["digest"])):
                raise ValueError
            if plain["index"] < 0:
                raise ValueError
            key, signature = bytes.fromhex(plain["key"]), bytes.fromhex(plain["signature"])
        except (AttributeError, ValueError):
            raise BadLedger(
                "A checkpoint has the fields ledger, index, digest, key and signature; both "
                "digests are 64 hexadecimal digits.", "something else",
                "Use the checkpoint as the ledger's owner gave it out.",
            ) from None  # fmt: skip
        return cls(plain["ledger"], plain["index"], plain["digest"], VerifyKey(key), signature)


def _is_digest(text: str) -> bool:
    return re.fullmatch("[0-9a-f]{64}", text) is not None


@dataclass(slots=True)
class Chain:
    """The end of a ledger, followed line by line: what the next entry must continue.

    Attributes:
        length: entries so far.
        head: digest of the last line.
        ledger: digest of the first line, '' while there is none.
        time_s: of the last entry.
        clock_set_back: how many entries have an earlier time than the one before.
    """

    length: int = 0
    head: str = NOTHING_BEFORE
    ledger: str = ""
    time_s: int = 0
    clock_set_back: int = 0

    def extend(self, kind: str, fields: Mapping[str, Json], time_s: int) -> bytes:
        """Return the line of the next entry, without the newline, and move on to it.

        Raises:
            BadLedger: an unknown kind, a first entry that is no genesis or a later one that is, or
                an entry that is too long.
            ValueError, TypeError: `fields` is not plain JSON with finite numbers.
        """
        if kind not in KINDS or (kind == "genesis") != (self.length == 0):
            raise BadLedger(
                f"Entry {self.length} has one of the known kinds, and 'genesis' stands at 0 only.",
                f"'{kind}'", f"Use one of {', '.join(sorted(KINDS))}.",
            )  # fmt: skip
        line = Entry(self.length, time_s, kind, fields, self.head).line()
        if len(line) > MAX_LINE_BYTES:
            raise BadLedger(
                f"A ledger entry has at most {MAX_LINE_BYTES} bytes.", f"{len(line)} bytes",
                "Record a digest in place of the data.",
            )  # fmt: skip
        self._advance(line, time_s)
        return line

    def follow(self, line: bytes) -> Entry:
        """Return the entry in a line if it continues this chain, and move on to it.

        Args:
            line: without the newline.

        Raises:
            BadLedger: it does not; the message says where and how.
        """
        entry = parse(line, self.length)
        if entry.index != self.length:
            raise _broken(
                self.length,
                f"entry {entry.index} stands where entry {self.length} belongs: "
                "entries were removed, added or reordered here",
            )  # fmt: skip
        if entry.previous != self.head:
            what = (
                f"entry {self.length - 1} is not the one that entry {self.length} was written after"
            )
            raise _broken(self.length, f"{what}: one of the two was altered or replaced")
        if (entry.kind == "genesis") != (self.length == 0):
            raise _broken(self.length, f"kind '{entry.kind}', but 'genesis' stands first and once")
        self._advance(line, entry.time_s)
        return entry

    def _advance(self, line: bytes, time_s: int) -> None:
        self.head = hashlib.sha256(line).hexdigest()
        if self.length == 0:
            self.ledger = self.head
        elif time_s < self.time_s:
            self.clock_set_back += 1
        self.time_s = time_s
        self.length += 1


@dataclass(frozen=True, slots=True)
class Verified:
    """What `verify` found in a sound ledger.

    Attributes:
        owner: who keeps it, as its first entry says.
        federation: the federation it belongs to.
        length: number of entries.
        head: digest of the last line; two copies of one ledger have the same.
        ledger: digest of the first line, the ledger's name in checkpoints.
        signed_to: index of the last entry under a checkpoint of its own, -1 if none.
        keys: names of the keys that signed its checkpoints.
        clock_set_back: entries with an earlier time than the one before.
        first_s: Unix time of the first entry.
        latest_s: the latest time of any entry.
    """

    owner: str
    federation: str
    length: int
    head: str
    ledger: str
    signed_to: int
    keys: frozenset[str] = field(default_factory=frozenset)
    clock_set_back: int = 0
    first_s: int = 0
    latest_s: int = 0


def verify(
    lines: Iterable[bytes],
    *,
    checkpoints: Iterable[Checkpoint] = (),
    keys: Iterable[VerifyKey] | None = None,
    federation: str | None = None,
    signatures: bool = True,
    on_entry: Callable[[Entry], None] | None = None,
) -> Verified:
    """Return what a ledger is if nothing in it was altered, in one pass and constant memory.

    Args:
        lines: the file's lines, with or without their newlines.
        checkpoints: kept elsewhere; each must lie on this chain.
        keys: who may sign its checkpoints; None accepts any and names them in the result.
        federation: the one it must belong to; None accepts any.
        signatures: False skips the checkpoints' signatures (the slow part), never the chain.
        on_entry: called with each entry once it is known to continue the chain; its BadLedger is
            this function's.

    Raises:
        BadLedger: an edit, removal, reordering or truncation, and where; another federation; a
            checkpoint with a signature that does not verify or by a key that is not in `keys`.
    """
    trusted = None if keys is None else {key.raw for key in keys}
    expected: dict[int, list[Checkpoint]] = {}
    for checkpoint in checkpoints:
        _check_signature(checkpoint, trusted, "a checkpoint kept elsewhere", signatures)
        expected.setdefault(checkpoint.index, []).append(checkpoint)
    chain, genesis, signed_to, signers = Chain(), None, -1, set()
    first_s = latest_s = 0
    for raw in lines:
        before = chain.head
        entry = chain.follow(raw.removesuffix(b"\n"))
        if genesis is None:
            genesis, first_s = _genesis(entry, federation), entry.time_s
        latest_s = max(latest_s, entry.time_s)
        if entry.kind == "checkpoint":
            checkpoint = Checkpoint.from_plain(dict(entry.fields))
            covers = (checkpoint.ledger, checkpoint.index, checkpoint.digest)
            if covers != (chain.ledger, entry.index - 1, before):
                raise _broken(
                    entry.index, "a checkpoint that covers something else than this ledger"
                )
            _check_signature(checkpoint, trusted, f"entry {entry.index}", signatures)
            signed_to = checkpoint.index
            signers.add(checkpoint.key.name)
        for checkpoint in expected.pop(entry.index, ()):
            if (checkpoint.ledger, checkpoint.digest) != (chain.ledger, chain.head):
                raise _broken(
                    entry.index, f"another history than the one signed by {checkpoint.key.name} in "
                    f"its checkpoint at entry {entry.index}: the ledger was rewritten or forked",
                )  # fmt: skip
        if on_entry is not None:
            on_entry(entry)
    if genesis is None:
        raise _broken(0, "an empty ledger")
    if expected:
        raise BadLedger(
            f"The ledger reaches the checkpoint at entry {max(expected)} that was kept elsewhere.",
            f"{chain.length} entries, so at least {max(expected) + 1 - chain.length} were cut off",
            "Treat it as tampered with and ask its owner for the whole.",
        )
    owner, name = genesis
    return Verified(
        owner, name, chain.length, chain.head, chain.ledger, signed_to, frozenset(signers),
        chain.clock_set_back, first_s, latest_s,
    )  # fmt: skip


def genesis_of(line: bytes) -> tuple[str, str, str]:
    """Return owner, federation and name of the ledger that begins with a line.

    Args:
        line: the first, without its newline.

    Raises:
        BadLedger: it is no first entry, or of a newer format.
    """
    chain = Chain()
    owner, federation = _genesis(chain.follow(line), None)
    return owner, federation, chain.ledger


def parse(line: bytes, where: int) -> Entry:
    """Return the entry in one line, checked by itself and not against its neighbours.

    Args:
        line: without the newline.
        where: the position to name in an error.

    Raises:
        BadLedger: too long, not the canonical spelling, or wrong fields.
    """
    if len(line) > MAX_LINE_BYTES:
        raise _broken(where, f"a line of {len(line)} bytes")
    try:
        plain = json.loads(line.decode("ascii"))
        canonical = _spell(plain) == line
    except (ValueError, TypeError, RecursionError):
        raise _broken(where, "a line that is not JSON") from None
    kinds = {"index": int, "time_s": int, "kind": str, "fields": dict, "previous": str}
    if (
        not isinstance(plain, dict)
        or plain.keys() != kinds.keys()
        or any(type(plain[name]) is not kind for name, kind in kinds.items())
    ):
        raise _broken(where, "a line with other fields than an entry has")
    if not canonical:
        raise _broken(where, "a line in another spelling than the canonical one")
    if plain["kind"] not in KINDS:
        raise BadLedger(
            f"Entry {where} has a kind that this version knows.", f"'{plain['kind']}'",
            "If a newer version wrote the ledger, read it with that version.",
        )  # fmt: skip
    return Entry(
        plain["index"], plain["time_s"], plain["kind"], plain["fields"], plain["previous"]
    )  # fmt: skip


def _spell(plain: Any) -> bytes:
    return _ENCODER.encode(plain).encode("ascii")


def _genesis(entry: Entry, federation: str | None) -> tuple[str, str]:
    found = entry.fields.get("format")
    if found != FORMAT:
        raise BadLedger(
            f"This version reads ledgers of format {FORMAT}.", f"format {found!r}",
            "Read it with the version of Chorister that wrote it.",
        )  # fmt: skip
    owner, name = entry.fields.get("owner"), entry.fields.get("federation")
    if not isinstance(owner, str) or not isinstance(name, str):
        raise _broken(0, "a first entry without owner and federation")
    if federation is not None and name != federation:
        raise BadLedger(
            f"The ledger belongs to the federation '{federation}'.", f"'{name}'",
            "Give the ledger of this federation.",
        )  # fmt: skip
    return owner, name


def _check_signature(
    checkpoint: Checkpoint, trusted: set[bytes] | None, where: str, signatures: bool
) -> None:
    if trusted is not None and checkpoint.key.raw not in trusted:
        raise BadLedger(
            "A checkpoint is signed by a key that the ledger's owner is known by.",
            f"key {checkpoint.key.name} at {where}",
            "Get the owner's key from the owner; do not trust this ledger until it is known.",
        )
    if signatures:
        try:
            checkpoint.check()
        except BadSignature as error:
            raise BadLedger(error.rule, f"{error.found} at {where}", "Do not trust it.") from None


def _broken(where: int, found: str) -> BadLedger:
    return BadLedger(
        f"Entry {where} continues the ledger's chain.", found,
        "Treat the ledger as tampered with from there on; compare it with another copy.",
    )  # fmt: skip
