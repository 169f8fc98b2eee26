"""An authority that invites, and admits a connection."""

import hashlib
import json

import pytest

from chorister.server import authority_cli
from chorister.server.authority_cli import main
from chorister.shared.enrolment import EnrolmentToken, PossessionProof
from chorister.shared.errors import BadMessage, BadSettings, UsageError
from chorister.shared.invite import Invite
from chorister.shared.node_key import NodeAdmission, NodeKey
from chorister.shared.privacy.ledger_file import system_clock
from chorister.shared.randomness import SystemRandomness
from chorister.shared.signing import SigningKey, VerifyKey
from chorister.shared.voice.adapter_spec import SharedAdapterSpec

DEVICE = SigningKey(bytes(range(32)))
NODE = NodeKey.generate(SystemRandomness())


@pytest.fixture
def desk(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(authority_cli, "default_folder", lambda: tmp_path / "authority")

    def run(*arguments):
        assert main([*map(str, arguments), "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    run.public = VerifyKey(bytes.fromhex(run("init", "--federation", "choir")["public_key"]))
    (tmp_path / "settings.toml").write_text('[federation]\nname = "choir"\nrounds = 3\n')
    (tmp_path / "app.fab").write_bytes(b"bundle")
    return run


def invited(desk, tmp_path, *more):
    out = tmp_path / "invitation"
    return desk(
        "invite", "--server", "127.0.0.1:9092", "--settings", tmp_path / "settings.toml",
        "--bundle", tmp_path / "app.fab", "--out", out, *more,
    ), out  # fmt: skip


def test_an_invitation_holds_what_was_said_and_is_the_authoritys(desk, tmp_path):
    layout = ("--adapter-rank", "1", "--adapter-placement", "noise")
    _, out = invited(desk, tmp_path, "--least-cohort", "4", "--token", *layout)
    invite = Invite.from_bytes(out.read_bytes())
    invite.check(system_clock())
    assert invite.authority == desk.public
    assert invite.bundles == (hashlib.sha256(b"bundle").hexdigest(),)
    assert (invite.terms.rounds, invite.least_cohort) == (3, 4)
    assert invite.release.spec == SharedAdapterSpec(1, "noise")
    assert invite.token is not None
    assert out.stat().st_mode & 0o777 == 0o600, "it holds a token"
    assert desk("list")["open_tokens"] == 1


def test_what_cannot_be_signed_uses_no_token_and_writes_no_file(desk, tmp_path):
    for more, error in [
        (["--server", "example.org:443"], BadMessage),
        (["--least-honest", "5"], BadMessage),
        (["--bundle", str(tmp_path / "none")], UsageError),
        (["--adapter-rank", "99"], BadSettings),
        (["--days", "0"], UsageError),
        (["--out", str(tmp_path / "no" / "folder")], UsageError),
    ]:
        with pytest.raises(error):
            invited(desk, tmp_path, "--token", *more)
    (tmp_path / "settings.toml").write_text('name = "quire"\n')
    with pytest.raises(UsageError, match="invites to 'choir'"):
        invited(desk, tmp_path, "--token")
    assert not (tmp_path / "invitation").exists()
    assert desk("list")["open_tokens"] == 0


def request(desk, tmp_path, node_key):
    token = EnrolmentToken.from_text(desk("token")["token"])
    path = tmp_path / "request"
    path.write_bytes(PossessionProof.make(DEVICE, "choir", token.challenge, node_key).to_bytes())
    return path


def test_approval_gives_the_server_the_key_that_the_device_signed(desk, tmp_path):
    path = request(desk, tmp_path, NODE.public_bytes())
    desk("approve", path, "--out", tmp_path / "certificate", "--node", tmp_path / "node")
    admission = NodeAdmission.from_bytes((tmp_path / "node").read_bytes())
    admission.check(desk.public, "choir", system_clock())
    assert admission.node_key == NODE.public_bytes()
    assert admission.device_id == DEVICE.verify_key().name


def test_one_name_for_certificate_and_admission_uses_no_token(desk, tmp_path):
    path = request(desk, tmp_path, NODE.public_bytes())
    for node in (tmp_path / "one", tmp_path / "authority" / ".." / "one"):
        with pytest.raises(UsageError, match="not used up"):
            main(["approve", str(path), "--out", str(tmp_path / "one"), "--node", str(node)])
    assert desk("list")["open_tokens"] == 1


def test_a_request_without_a_connection_uses_no_token(desk, tmp_path):
    path = request(desk, tmp_path, b"")
    with pytest.raises(UsageError, match="not used up"):
        main(["approve", str(path), "--out", str(tmp_path / "c"), "--node", str(tmp_path / "n")])
    assert desk("list")["open_tokens"] == 1
