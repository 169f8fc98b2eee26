"""What an owner agrees to, and what may replace it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from chorister.client.agreement import OwnerLimits, agree, agreement, agreements
from chorister.client.home import open_home
from chorister.client.membership import membership, node_key_of
from chorister.shared.errors import BadSettings, BadSignature, BadWeights, UsageError
from chorister.shared.invite import ModelRelease
from chorister.shared.signing import SigningKey
from chorister.shared.voice.adapter_spec import SharedAdapterSpec
from chorister.shared.voice.base_digest import BASE_SHA256

OTHER = SigningKey(bytes(range(1, 33)))
pytestmark = pytest.mark.usefixtures("quick_vault")


@pytest.fixture
def home(member, material, tmp_path):
    return member.a_home(tmp_path / "vault", material, member.Clock())


def released(member, issued_s, rank=1, base=BASE_SHA256, key=None):
    return ModelRelease.sign(
        key or member.AUTHORITY, member.NAME, base, SharedAdapterSpec(rank), issued_s
    )


def test_it_pins_the_authority_and_comes_back_in_another_process(home, member):
    agreed = agree(home, member.an_invite(), OwnerLimits(least_cohort=3))
    again = open_home(home.folder, "correct horse", clock=home.now_s)
    assert agreements(again) == (agreed,)
    assert membership(again, member.NAME).authority == member.AUTHORITY.verify_key()
    assert agreement(again, "quire") is None


def test_another_authority_is_refused_for_a_federation_that_is_pinned(home, member):
    agree(home, member.an_invite(), OwnerLimits())
    with pytest.raises(BadSignature, match="pinned the authority"):
        agree(home, member.an_invite(OTHER), OwnerLimits())
    assert agreement(home, member.NAME).invite.authority == member.AUTHORITY.verify_key()


def test_a_newer_release_by_the_pinned_key_replaces_an_older_one_and_not_the_other_way(
    home, member
):
    agree(home, member.an_invite(), OwnerLimits())
    newer = member.an_invite(release=released(member, member.NOW_S + 5, rank=3))
    home.now_s.now_s += 10
    agree(home, newer, OwnerLimits())
    assert agreement(home, member.NAME).invite.release.spec.rank == 3
    with pytest.raises(BadSignature, match="newer invitation"):
        agree(home, member.an_invite(), OwnerLimits())
    assert agreement(home, member.NAME).invite.release.spec.rank == 3


def test_a_release_by_another_key_is_refused(home, member):
    invite = member.an_invite()
    forged = released(member, member.NOW_S + 5, rank=3, key=OTHER)
    with pytest.raises(BadSignature):
        replace(invite, release=forged).signed(member.AUTHORITY)


def test_another_base_than_the_installed_one_is_refused_and_nothing_is_kept(home, member):
    other = member.an_invite(release=released(member, member.NOW_S, base="c" * 64))
    with pytest.raises(BadWeights, match="Install the version"):
        agree(home, other, OwnerLimits())
    assert agreements(home) == ()
    assert membership(home, member.NAME) is None


def test_an_expired_invitation_and_one_without_noise_are_refused(home, member):
    plain = member.TERMS.model_copy(update={"private": False})
    with pytest.raises(UsageError, match="private"):
        agree(home, member.an_invite(terms=plain), OwnerLimits())
    home.now_s.now_s += 100_000
    with pytest.raises(BadSignature, match="ended"):
        agree(home, member.an_invite(), OwnerLimits())
    assert agreements(home) == ()


@pytest.mark.parametrize(
    "values",
    [{"least_cohort": 1}, {"speaker_epsilon_max": 0.0}, {"least_noise_multiplier": -1.0}, {"x": 1}],
)
def test_limits_out_of_range_are_refused(values):
    with pytest.raises(BadSettings):
        OwnerLimits.parse(values, "the command line")


def test_each_federation_knows_another_connection(home, member):
    one, two = node_key_of(home, "choir"), node_key_of(home, "quire")
    assert one.public_bytes() != two.public_bytes()
    assert node_key_of(home, "choir").public_bytes() == one.public_bytes()


@pytest.mark.parametrize("writes", [0, 1, 2])
def test_a_crash_while_it_is_kept_leaves_all_of_it_or_none(home, member, monkeypatch, writes):
    put, done = home.vault.put, []

    def until(name, *rest):
        if len(done) == writes and name.startswith(("limits-", "invite-")):
            raise OSError
        if name.startswith(("limits-", "invite-")):
            done.append(name)
        return put(name, *rest)

    monkeypatch.setattr(home.vault, "put", until, raising=False)
    if writes < 2:
        with pytest.raises(OSError, match=""):
            agree(home, member.an_invite(), OwnerLimits(least_cohort=3))
    monkeypatch.undo()
    assert agreement(home, member.NAME) is None
    agree(home, member.an_invite(), OwnerLimits(least_cohort=3))
    assert agreement(home, member.NAME).limits.least_cohort == 3
