from hypothesis import given
from hypothesis import strategies as st

from chorister.shared.errors import BadLedger
from chorister.shared.privacy.ledger import Chain, Checkpoint, verify
from chorister.shared.signing import SigningKey

FIELDS = st.dictionaries(
    st.text(max_size=5),
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.text(max_size=8),
        st.floats(allow_nan=False, allow_infinity=False),
    ),
    max_size=3,
)


def written(bodies):
    chain = Chain()
    lines = [chain.extend("genesis", {"format": 1, "owner": "o", "federation": "f"}, 0)]
    lines += [chain.extend("note", body, i) for i, body in enumerate(bodies)]
    checkpoint = Checkpoint.sign(SigningKey(bytes(32)), chain.ledger, chain.length - 1, chain.head)
    return b"\n".join(lines) + b"\n", checkpoint


def verifies(data, checkpoint):
    try:
        verify(data.splitlines(keepends=True), checkpoints=[checkpoint])
    except BadLedger:
        return False
    return True


@given(st.lists(FIELDS, max_size=5))
def test_what_was_written_verifies(bodies):
    assert verifies(*written(bodies))


@given(st.lists(FIELDS, min_size=1, max_size=5), st.data())
def test_any_changed_byte_is_found(bodies, data):
    content, checkpoint = written(bodies)
    # The last byte is the final newline, which is no part of any entry.
    at = data.draw(st.integers(0, len(content) - 2))
    byte = data.draw(st.integers(0, 255).filter(lambda b: b != content[at]))
    assert not verifies(content[:at] + bytes([byte]) + content[at + 1 :], checkpoint)


@given(st.lists(FIELDS, min_size=1, max_size=5), st.data())
def test_any_other_order_or_selection_of_lines_is_found(bodies, data):
    content, checkpoint = written(bodies)
    lines = content.splitlines(keepends=True)
    picked = data.draw(st.lists(st.sampled_from(range(len(lines))), max_size=len(lines) + 1))
    if picked != list(range(len(lines))):
        assert not verifies(b"".join(lines[i] for i in picked), checkpoint)
