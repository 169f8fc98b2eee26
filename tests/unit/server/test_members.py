"""Who may connect: whom the authority admitted, until it says otherwise."""

from __future__ import annotations

import threading
import time
from dataclasses import replace

import pytest

from chorister.server.members import admit, members, take_revocations
from chorister.server.revocations import RevocationList
from chorister.shared import files
from chorister.shared.errors import BadMessage, BadSignature, UsageError
from chorister.shared.randomness import SystemRandomness
from chorister.shared.signing import SigningKey

NOW_S = int(time.time())


def _list(office, devices, issued_s=NOW_S, key=None):
    return RevocationList.sign(key or office.authority, "choir", devices, issued_s).to_bytes()


def _take(office, data):
    authority = office.authority.verify_key()
    return take_revocations(office.folder, data, authority, "choir")


def test_an_admitted_device_is_a_member_until_its_admission_ends(office):
    admission = office.admission(NOW_S + 100)
    assert admit(office.folder, admission.to_bytes(), "choir", NOW_S) == admission
    assert members(office.folder, "choir", NOW_S).admitted == {admission.device_id: admission}
    later = members(office.folder, "choir", NOW_S + 101)
    assert not later.admitted
    assert list(later.unfit) == [f"{admission.device_id}.admission"]


def test_an_older_admission_does_not_come_back(office):
    device = SigningKey.generate(SystemRandomness()).verify_key()
    first, second, other = (office.admission(device=device, issued_s=s) for s in (10, 20, 20))
    for one in (first, second, second):
        admit(office.folder, one.to_bytes(), "choir", NOW_S)
    for one in (first, other):
        with pytest.raises(UsageError, match=r"one of .0, where that of 20 is known"):
            admit(office.folder, one.to_bytes(), "choir", NOW_S)
    assert members(office.folder, "choir", NOW_S).admitted == {device.name: second}


@pytest.mark.parametrize("what", ["admission", "list"])
def test_of_two_that_are_taken_in_at_once_the_older_does_not_win(office, monkeypatch, what):
    device = SigningKey.generate(SystemRandomness()).verify_key()
    if what == "admission":
        both = [office.admission(device=device, issued_s=s).to_bytes() for s in (10, 20)]

        def take(data):
            admit(office.folder, data, "choir", NOW_S)
    else:
        both = [_list(office, [], 10), _list(office, [device.name], 20)]

        def take(data):
            _take(office, data)

    newer = threading.Thread(target=take, args=(both[1],))
    write = files.write_atomically

    def slowly(path, data):
        if data == both[0]:
            newer.start()
            newer.join(0.3)  # it waits its turn, or has had it
        write(path, data)

    monkeypatch.setattr("chorister.server.members.write_atomically", slowly)
    take(both[0])
    newer.join()
    found = members(office.folder, "choir", NOW_S)
    assert [*(one.issued_s for one in found.admitted.values()), *found.revoked] == (
        [20] if what == "admission" else [device.name]
    )


def test_a_folder_in_an_admissions_place_is_named(office):
    admission = office.admission()
    place = office.folder.members / f"{admission.device_id}.admission"
    place.mkdir()
    with pytest.raises(UsageError, match="a file that can be read") as refusal:
        admit(office.folder, admission.to_bytes(), "choir", NOW_S)
    assert str(place) in str(refusal.value)


def test_an_older_admission_comes_back_where_the_newer_one_was_altered(office):
    device = SigningKey.generate(SystemRandomness()).verify_key()
    first, second = (office.admission(device=device, issued_s=s) for s in (10, 20))
    admit(office.folder, second.to_bytes(), "choir", NOW_S)
    path = next(office.folder.members.iterdir())
    path.write_bytes(replace(second, issued_s=30).to_bytes())
    admit(office.folder, first.to_bytes(), "choir", NOW_S)
    assert members(office.folder, "choir", NOW_S).admitted == {device.name: first}


def test_another_authority_or_federation_admits_nobody(office, offices, tmp_path):
    (tmp_path / "other").mkdir()
    stranger = offices.an_office(tmp_path / "other").admission()
    with pytest.raises(BadSignature):
        admit(office.folder, stranger.to_bytes(), "choir", NOW_S)
    with pytest.raises(BadSignature):
        admit(office.folder, office.admission(federation="x").to_bytes(), "choir", NOW_S)
    with pytest.raises(BadMessage):
        admit(office.folder, b"junk", "choir", NOW_S)
    assert not members(office.folder, "choir", NOW_S).admitted


def test_a_file_that_was_altered_admits_nobody_and_is_named(office):
    admission = office.admission()
    admit(office.folder, admission.to_bytes(), "choir", NOW_S)
    path = next(office.folder.members.iterdir())
    path.write_bytes(replace(admission, not_after_s=admission.not_after_s + 1).to_bytes())
    found = members(office.folder, "choir", NOW_S)
    assert not found.admitted
    assert path.name in found.unfit


def test_a_revoked_device_is_out_and_stays_out(office):
    gone, here = office.admission(), office.admission()
    for one in (gone, here):
        admit(office.folder, one.to_bytes(), "choir", NOW_S)
    _take(office, _list(office, [gone.device_id]))
    found = members(office.folder, "choir", NOW_S)
    assert list(found.admitted) == [here.device_id]
    assert found.revoked == {gone.device_id}
    with pytest.raises(UsageError, match="admitted no more"):
        admit(office.folder, gone.to_bytes(), "choir", NOW_S)


def test_an_older_list_brings_nobody_back(office):
    gone = office.admission()
    _take(office, _list(office, [gone.device_id], NOW_S))
    with pytest.raises(UsageError, match="replaces an older one"):
        _take(office, _list(office, [], NOW_S - 1))
    assert members(office.folder, "choir", NOW_S).revoked == {gone.device_id}


def test_a_list_by_another_key_is_refused(office):
    with pytest.raises(BadSignature):
        _take(office, _list(office, [], key=SigningKey.generate(SystemRandomness())))


def test_an_altered_list_lets_nobody_in(office):
    admit(office.folder, office.admission().to_bytes(), "choir", NOW_S)
    _take(office, _list(office, []))
    data = bytearray(office.folder.revoked_file.read_bytes())
    data[-1] ^= 1
    office.folder.revoked_file.write_bytes(bytes(data))
    with pytest.raises((BadSignature, BadMessage)):
        members(office.folder, "choir", NOW_S)


def test_a_device_id_is_no_path(office):
    from chorister.shared.node_key import NodeAdmission

    honest = office.admission()
    sly = NodeAdmission.sign(
        office.authority, "choir", "../../escape", honest.node_key,
        issued_s=honest.issued_s, not_after_s=honest.not_after_s,
    )  # fmt: skip
    with pytest.raises(BadMessage):
        admit(office.folder, sly.to_bytes(), "choir", NOW_S)
