"""The authority at its desk."""

import json
import os

import pytest

from chorister.server import authority_cli
from chorister.server.authority_cli import main
from chorister.server.revocations import RevocationList, read_revocations
from chorister.shared.enrolment import EnrolmentToken, PossessionProof
from chorister.shared.errors import BadMessage, BadSignature, UsageError
from chorister.shared.node_key import NodeAdmission, NodeKey
from chorister.shared.randomness import SystemRandomness
from chorister.shared.signing import Certificate, SigningKey, VerifyKey

DEVICE, OTHER = SigningKey(bytes(range(32))), SigningKey(bytes(range(1, 33)))
NAME = DEVICE.verify_key().name


@pytest.fixture
def desk(tmp_path, monkeypatch, capsys):
    """Runs a command on a new authority and returns what it prints as JSON."""
    monkeypatch.setattr(authority_cli, "default_folder", lambda: tmp_path / "authority")

    def run(*arguments):
        assert main([*arguments, "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    run.public = VerifyKey(bytes.fromhex(run("init", "--federation", "choir")["public_key"]))
    run.folder = tmp_path
    return run


def requested(desk, key=DEVICE):
    token = EnrolmentToken.from_text(desk("token")["token"])
    assert token.authority == desk.public
    path = desk.folder / "request"
    path.write_bytes(PossessionProof.make(key, token.federation, token.challenge).to_bytes())
    return path


def test_from_a_token_to_a_revocation_that_the_server_reads(desk):
    request, file = requested(desk), desk.folder / "certificate"
    assert desk("list")["open_tokens"] == 1
    assert desk("approve", str(request), "--out", str(file))["device"] == NAME
    Certificate.from_bytes(file.read_bytes()).check(desk.public, "choir", 1_000)
    found = desk("list")
    assert ([d["device_id"] for d in found["devices"]], found["open_tokens"]) == ([NAME], 0)
    listed = desk.folder / "revoked"
    desk("revoked", "--out", str(listed))
    assert read_revocations(listed, desk.public, "choir") == frozenset()
    desk("revoke", NAME, "--out", str(listed))
    assert read_revocations(listed, desk.public, "choir") == {NAME}


def test_a_request_that_comes_twice_gets_the_same_answer_and_enrols_once(desk):
    request, one, two = (desk.folder / name for name in ("request", "one", "two"))
    requested(desk)
    approve = ("approve", str(request), "--out")
    assert not desk(*approve, str(one))["again"]
    assert desk(*approve, str(two), "--days", "9999")["again"]
    assert desk(*approve, str(one))["again"]
    assert one.read_bytes() == two.read_bytes()
    assert len(desk("list")["devices"]) == 1
    two.write_bytes(b"something of the owner's")
    with pytest.raises(UsageError, match="same answer again"):
        main([*approve, str(two)])
    desk("revoke", NAME, "--out", str(desk.folder / "revoked"))
    with pytest.raises(BadSignature, match="revoked"):
        main([*approve, str(desk.folder / "three")])


def test_anothers_used_token_gets_no_answer(desk):
    token = EnrolmentToken.from_text(desk("token")["token"])
    for key, name in ((DEVICE, "one"), (OTHER, "other")):
        proof = PossessionProof.make(key, token.federation, token.challenge)
        (desk.folder / name).write_bytes(proof.to_bytes())
    desk("approve", str(desk.folder / "one"), "--out", str(desk.folder / "certificate"))
    with pytest.raises(BadSignature, match="used, expired or unknown"):
        main(["approve", str(desk.folder / "other"), "--out", str(desk.folder / "two")])
    assert not (desk.folder / "two").exists()


def test_a_used_token_answers_no_other_request_of_its_device(desk):
    token = EnrolmentToken.from_text(desk("token")["token"])
    paths = []
    for number in range(2):
        key = NodeKey.generate(SystemRandomness()).public_bytes()
        proof = PossessionProof.make(DEVICE, token.federation, token.challenge, key)
        paths.append(desk.folder / f"request{number}")
        paths[-1].write_bytes(proof.to_bytes())
    one, two = map(str, paths)
    desk("approve", one, "--out", str(desk.folder / "c1"), "--node", str(desk.folder / "n1"))
    with pytest.raises(BadSignature, match="used, expired or unknown"):
        main(["approve", two, "--out", str(desk.folder / "c2"), "--node", str(desk.folder / "n2")])
    assert not (desk.folder / "n2").exists()
    assert desk("approve", one, "--out", str(desk.folder / "c3"))["again"]


def test_a_kill_at_any_durable_write_loses_no_admission(desk, monkeypatch):
    class Killed(BaseException):
        pass

    certificate, node = desk.folder / "certificate", desk.folder / "node"
    kills, done = 0, False
    while not done:
        kills += 1
        token = EnrolmentToken.from_text(desk("token")["token"])
        key = NodeKey.generate(SystemRandomness()).public_bytes()
        request = desk.folder / "request"
        proof = PossessionProof.make(DEVICE, token.federation, token.challenge, key)
        request.write_bytes(proof.to_bytes())
        approve = ("approve", str(request), "--out", str(certificate), "--node", str(node))
        count, fsync = [0], os.fsync

        def killed(handle, count=count, fsync=fsync, at=kills):
            count[0] += 1
            if count[0] == at:
                raise Killed
            fsync(handle)

        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", killed)
            try:
                main([*approve, "--quiet"])
                done = True
            except Killed:
                pass
        assert desk(*approve)["again"], "the token was used up before the files were written"
        Certificate.from_bytes(certificate.read_bytes()).check(desk.public, "choir", 1_000)
        NodeAdmission.from_bytes(node.read_bytes()).check(desk.public, "choir", 1_000)
        certificate.unlink()
        node.unlink()
    assert kills > 4, "two files, each written and named, are four writes"


def test_a_folder_or_no_folder_for_out_is_said_without_a_traceback(desk):
    request = requested(desk)
    with pytest.raises(UsageError, match="not used up"):
        main(["approve", str(request), "--out", str(desk.folder)])
    for out in (desk.folder, desk.folder / "none" / "list"):
        with pytest.raises(UsageError, match="authority revoked writes the list"):
            main(["revoked", "--out", str(out)])


def test_a_place_that_is_taken_uses_no_token_up(desk):
    request = requested(desk)
    with pytest.raises(UsageError, match="not used up"):
        main(["approve", str(request), "--out", str(request)])
    with pytest.raises(UsageError, match="can be read"):
        main(["approve", str(desk.folder / "none"), "--out", str(desk.folder / "one")])
    assert desk("list")["open_tokens"] == 1


def test_there_is_one_authority_in_a_folder(desk, tmp_path):
    with pytest.raises(UsageError, match="folder of its own"):
        main(["init", "--federation", "choir"])
    with pytest.raises(UsageError, match="authority init"):
        main(["list", "--folder", str(tmp_path / "none")])
    (tmp_path / "authority" / "authority.json").write_text("{}")
    with pytest.raises(UsageError, match="names federation and database"):
        main(["list"])


def test_an_authority_that_cannot_be_made_leaves_no_key(tmp_path):
    folder = tmp_path / "new"
    for wrong in (["--federation", ""], ["--federation", "c", "--database", "nonsense"]):
        with pytest.raises(UsageError):
            main(["init", *wrong, "--folder", str(folder)])
    assert not (folder / "authority-key.pem").exists()
    assert main(["init", "--federation", "c", "--folder", str(folder), "--quiet"]) == 0
    assert (folder / "authority-key.pem").stat().st_mode & 0o077 == 0


def test_a_list_that_is_not_the_authoritys_stops_the_server(desk):
    path = desk.folder / "revoked"
    forged = RevocationList.sign(OTHER, "choir", [], 1)
    for data, error in (
        (forged.to_bytes(), BadSignature),
        (RevocationList.sign(DEVICE, "other", [], 1).to_bytes(), BadSignature),
        (forged.to_bytes()[:-1], BadMessage),
    ):
        path.write_bytes(data)
        with pytest.raises(error):
            read_revocations(path, desk.public, "choir")
    with pytest.raises(UsageError, match="authority revoked"):
        read_revocations(desk.folder / "none", desk.public, "choir")
    good = RevocationList.sign(OTHER, "other", [NAME], 1)
    with pytest.raises(BadSignature, match="of the federation 'choir'"):
        good.check(OTHER.verify_key(), "choir")
