import json

import pytest

from chorister.shared.errors import BadLedger
from chorister.shared.privacy.ledger import Chain, Checkpoint, parse, verify
from chorister.shared.signing import SigningKey

KEY = SigningKey(bytes(range(32)))
STRANGER = SigningKey(bytes(32))


def written(count=6, *, federation="choir", checkpoint_at=None, times=None):
    """A ledger's lines and the checkpoints in it."""
    chain, lines, checkpoints = Chain(), [], []
    for index in range(count):
        time_s = 1_000 + index if times is None else times[index]
        if index == 0:
            fields = {"format": 1, "owner": "server", "federation": federation}
            lines.append(chain.extend("genesis", fields, time_s))
        elif index == checkpoint_at:
            checkpoints.append(Checkpoint.sign(KEY, chain.ledger, index - 1, chain.head))
            lines.append(chain.extend("checkpoint", checkpoints[-1].to_plain(), time_s))
        else:
            lines.append(chain.extend("round", {"round": index, "survivors": 5}, time_s))
    return lines, checkpoints


def respelled(line, **changes):
    plain = {**json.loads(line), **changes}
    return json.dumps(plain, sort_keys=True, separators=(",", ":")).encode()


def test_a_sound_ledger_verifies():
    lines, checkpoints = written(checkpoint_at=4)
    found = verify(lines, checkpoints=checkpoints, keys=[KEY.verify_key()], federation="choir")
    assert (found.owner, found.federation, found.length) == ("server", "choir", 6)
    assert found.signed_to == 3
    assert found.keys == {KEY.verify_key().name}


@pytest.mark.parametrize(
    ("tamper", "entry"),
    [
        (lambda ls: [*ls[:2], respelled(ls[2], fields={"round": 2, "survivors": 9}), *ls[3:]], 3),
        (lambda ls: [*ls[:2], respelled(ls[2], time_s=5), *ls[3:]], 3),
        (lambda ls: [*ls[:2], respelled(ls[2], kind="note"), *ls[3:]], 3),
        (lambda ls: ls[:2] + ls[3:], 2),
        (lambda ls: ls[1:], 0),
        (lambda ls: [ls[0], ls[2], ls[1], *ls[3:]], 1),
        (lambda ls: [*ls[:3], ls[2], *ls[3:]], 3),
        (lambda ls: [*ls[:3], respelled(ls[2], index=3), *ls[3:]], 3),
        (lambda ls: [*ls[:2], b"", *ls[2:]], 2),
        (lambda ls: [*ls[:2], ls[2].replace(b",", b", "), *ls[3:]], 2),
        (lambda ls: [*ls[:2], ls[2][:-1], *ls[3:]], 2),
        (lambda ls: [*ls[:2], respelled(ls[2], extra=1), *ls[3:]], 2),
        (lambda ls: [*ls[:2], respelled(ls[2], index=True), *ls[3:]], 2),
        (lambda ls: [*ls[:2], b"[1]", *ls[3:]], 2),
        (lambda ls: [*ls[:2], b"[" * 100_000, *ls[3:]], 2),
        (lambda ls: [*ls[:2], ls[2].replace(b'"survivors":5', b'"survivors":NaN'), *ls[3:]], 2),
        (lambda ls: [*ls[:1], respelled(ls[1], kind="genesis"), *ls[2:]], 1),
        (lambda ls: [], 0),
    ],
)
def test_an_alteration_is_found_and_its_place_is_named(tamper, entry):
    lines, _ = written()
    with pytest.raises(BadLedger, match=f"Entry {entry} continues the ledger's chain"):
        verify(tamper(lines))


def test_a_cut_off_end_is_found_by_a_checkpoint_kept_elsewhere_only():
    lines, checkpoints = written(checkpoint_at=4)
    assert verify(lines[:3]).length == 3
    with pytest.raises(BadLedger, match="were cut off"):
        verify(lines[:3], checkpoints=checkpoints)


def test_a_rewritten_history_is_found_by_a_checkpoint_kept_elsewhere_only():
    _, checkpoints = written(checkpoint_at=4)
    rewritten, _ = written(times=[2_000] * 6)
    assert verify(rewritten).length == 6
    with pytest.raises(BadLedger, match="rewritten or forked"):
        verify(rewritten, checkpoints=checkpoints)


def test_a_checkpoint_copied_from_another_ledger_is_refused():
    _, foreign = written(federation="other", checkpoint_at=3)
    chain = Chain()
    lines = [chain.extend("genesis", {"format": 1, "owner": "server", "federation": "choir"}, 1)]
    lines.append(chain.extend("checkpoint", foreign[0].to_plain(), 2))
    with pytest.raises(BadLedger, match="covers something else"):
        verify(lines)


def test_a_checkpoint_by_an_unknown_key_is_refused():
    lines, checkpoints = written(checkpoint_at=4)
    with pytest.raises(BadLedger, match=f"key {KEY.verify_key().name} at entry 4"):
        verify(lines, keys=[STRANGER.verify_key()])
    with pytest.raises(BadLedger, match="kept elsewhere"):
        verify(lines[:1], checkpoints=checkpoints, keys=[STRANGER.verify_key()])


def test_a_forged_signature_is_refused_unless_signatures_are_left_out():
    chain = Chain()
    lines = [chain.extend("genesis", {"format": 1, "owner": "server", "federation": "choir"}, 1)]
    true = Checkpoint.sign(STRANGER, chain.ledger, 0, chain.head)
    forged = {**true.to_plain(), "key": KEY.verify_key().raw.hex()}
    lines.append(chain.extend("checkpoint", forged, 2))
    with pytest.raises(BadLedger, match="does not verify at entry 1"):
        verify(lines, keys=[KEY.verify_key()])
    assert verify(lines, signatures=False).length == 2


def test_another_federation_and_a_newer_format_are_refused():
    lines, _ = written()
    with pytest.raises(BadLedger, match="belongs to the federation 'other'"):
        verify(lines, federation="other")
    newer = Chain().extend("genesis", {"format": 2, "owner": "server", "federation": "choir"}, 1)
    with pytest.raises(BadLedger, match="format 2"):
        verify([newer])


def test_an_unknown_kind_is_refused_with_the_advice_to_use_a_newer_version():
    lines, _ = written()
    with pytest.raises(BadLedger, match="newer version"):
        parse(respelled(lines[1], kind="teleport"), 1)


def test_a_clock_that_was_set_back_is_counted_and_no_tampering():
    lines, _ = written(times=[5, 6, 3, 4, 2, 2])
    assert verify(lines).clock_set_back == 2


def test_numbers_that_are_not_finite_cannot_be_written():
    chain = Chain()
    chain.extend("genesis", {"format": 1, "owner": "o", "federation": "f"}, 1)
    with pytest.raises(ValueError, match="not JSON compliant"):
        chain.extend("round", {"loss": float("nan")}, 2)
    assert chain.length == 1


@pytest.mark.parametrize("plain", [None, [], {}, {"ledger": 1}, {"ledger": "a", "index": "0"}])
def test_what_is_no_checkpoint_is_refused(plain):
    with pytest.raises(BadLedger, match="A checkpoint has the fields"):
        Checkpoint.from_plain(plain)


@pytest.mark.parametrize(
    "changed",
    [
        {"ledger": "a" * 65}, {"ledger": "a" * 2**20}, {"digest": ""}, {"digest": "g" * 64},
        {"digest": "A" * 64}, {"ledger": "a" * 64 + "\n"}, {"index": -1},
    ],
)  # fmt: skip
def test_a_checkpoint_holds_digests_and_nothing_of_any_length(changed):
    _, (checkpoint,) = written(checkpoint_at=2)
    with pytest.raises(BadLedger, match="64 hexadecimal digits"):
        Checkpoint.from_plain(checkpoint.to_plain() | changed)


def test_a_checkpoint_survives_its_plain_form():
    _, (checkpoint,) = written(checkpoint_at=2)
    again = Checkpoint.from_plain(json.loads(json.dumps(checkpoint.to_plain())))
    again.check()
    assert again == checkpoint
