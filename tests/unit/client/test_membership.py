"""A device comes to its certificate, or is told why not."""

import json

import pytest

from chorister.client import home
from chorister.client.consent import give
from chorister.client.membership import accept_certificate, membership, request_membership
from chorister.client.membership_cli import main
from chorister.client.withdraw import withdraw
from chorister.shared.enrolment import EnrolmentToken
from chorister.shared.errors import BadMessage, BadSignature, ConsentRefused, UsageError
from chorister.shared.signing import Certificate, SigningKey

NOW_S = 1_000_000
AUTHORITY, OTHER = SigningKey(bytes(range(32))), SigningKey(bytes(range(1, 33)))
pytestmark = pytest.mark.usefixtures("quick_vault", "passphrase_file")


class Clock:
    now_s = NOW_S

    def __call__(self):
        return self.now_s


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def mine(tmp_path, clock):
    return with_consent(home.create_home(tmp_path / "vault", "correct horse", clock=clock))


def with_consent(mine, purposes=("training",)):
    record = give(
        mine.key, controller="choir", purposes=purposes, given_s=mine.now_s(),
        expires_s=mine.now_s() + 2**30, jurisdiction="EU",
    )  # fmt: skip
    return mine.keep_consent(record, "given")


def a_token(authority=AUTHORITY, federation="choir", expires_s=NOW_S + 100):
    return EnrolmentToken(federation, authority.verify_key(), bytes(32), expires_s)


def certified(mine, authority=AUTHORITY, federation="choir", not_after_s=NOW_S + 500, key=None):
    return Certificate.issue(authority, key or mine.device, federation, not_after_s)


def test_a_device_proves_its_key_and_keeps_what_the_pinned_authority_says(mine):
    proof = request_membership(mine, a_token())
    proof.check()
    assert proof.device_key == mine.device
    joined = accept_certificate(mine, certified(mine))
    assert membership(mine, "choir") == joined
    assert [i.kind for i in mine.vault.items()].count("certificate") == 1


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"authority": OTHER}, "signature that does not verify"),
        ({"not_after_s": NOW_S - 1}, "has not ended"),
        ({"key": OTHER.verify_key()}, "for this device names its key"),
        ({"federation": "another"}, "never asked"),
    ],
)
def test_a_foreign_or_ended_certificate_is_refused_with_its_reason(mine, changes, reason):
    request_membership(mine, a_token())
    with pytest.raises((BadSignature, UsageError), match=reason):
        accept_certificate(mine, certified(mine, **changes))
    assert membership(mine, "choir").certificate is None


def test_a_token_that_ended_or_is_of_another_authority_is_refused(mine, clock):
    with pytest.raises(UsageError, match="Ask the authority for a new one"):
        request_membership(mine, a_token(expires_s=NOW_S - 1))
    request_membership(mine, a_token())
    with pytest.raises(BadSignature, match="pinned the authority"):
        request_membership(mine, a_token(OTHER))


def test_without_a_consent_to_training_no_device_asks(tmp_path, clock):
    bare = home.create_home(tmp_path / "bare", "correct horse", clock=clock)
    with pytest.raises(ConsentRefused):
        request_membership(bare, a_token())
    narrow = with_consent(bare, ["conversion"])
    with pytest.raises(ConsentRefused, match="covers conversion only"):
        request_membership(narrow, a_token())


def test_a_withdrawal_tells_every_federation_that_was_joined(mine):
    for federation in ("choir", "band"):
        request_membership(mine, a_token(federation=federation))
        accept_certificate(mine, certified(mine, federation=federation))
    request_membership(mine, a_token(federation="never approved"))
    assert len(withdraw(mine).notices) == 2


def test_the_commands(tmp_path, capsys):
    with_consent(home.create_home(tmp_path / "vault", "correct horse"))
    request = tmp_path / "request"
    line = a_token(expires_s=2**33).to_text()
    assert main(["request", line, "--out", str(request), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["federation"] == "choir"
    assert main(["show"]) == 0
    assert "choir: not approved yet" in capsys.readouterr().out
    mine = home.open_home(tmp_path / "vault", "correct horse")
    certificate = tmp_path / "certificate"
    certificate.write_bytes(certified(mine, not_after_s=2**32).to_bytes())
    assert main(["accept", str(certificate)]) == 0
    assert main(["show", "--json"]) == 0
    assert '"not_after_s": 4294967296' in capsys.readouterr().out
    certificate.write_bytes(certificate.read_bytes()[:-1])
    with pytest.raises(BadMessage):
        main(["accept", str(certificate)])
    with pytest.raises(UsageError, match="can be read"):
        main(["accept", str(tmp_path / "none")])
    with pytest.raises(BadMessage, match="Copy the whole line"):
        main(["request", line[:-5], "--out", str(request)])
