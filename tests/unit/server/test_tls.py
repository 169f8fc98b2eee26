"""The connection's certificates: what devices verify, and nothing that they would wrongly take."""

from __future__ import annotations

import ssl
import stat
from dataclasses import replace

import pytest
from cryptography import x509

from chorister.server import tls
from chorister.shared.errors import BadMessage, UsageError
from chorister.shared.invite import Invite, ModelRelease
from chorister.shared.settings import Federation
from chorister.shared.signing import SigningKey
from chorister.shared.voice.adapter_spec import SharedAdapterSpec

NOW_S = 1_800_000_000


@pytest.fixture
def folder(tmp_path):
    tls.make_certificate_authority(tmp_path / "tls", "choir", NOW_S)
    tls.make_server_certificate(tmp_path / "tls", ["choir.example.org", "192.0.2.7"], NOW_S)
    return tmp_path / "tls"


def _read(path):
    return x509.load_pem_x509_certificate(path.read_bytes())


def test_the_certificate_is_for_the_names_that_devices_dial_and_for_this_machine(folder):
    names = _read(folder / "server.pem").extensions.get_extension_for_class(
        x509.SubjectAlternativeName
    )
    assert names.value.get_values_for_type(x509.DNSName) == ["choir.example.org", "localhost"]
    addresses = names.value.get_values_for_type(x509.IPAddress)
    assert [str(a) for a in addresses] == ["192.0.2.7", "127.0.0.1", "::1"]


def test_python_itself_takes_it_with_the_root_alone(folder):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.pem", folder / "server-key.pem")
    ssl.create_default_context(cafile=str(folder / "ca.pem"))
    _read(folder / "server.pem").verify_directly_issued_by(_read(folder / "ca.pem"))


def test_a_servers_certificate_can_sign_nothing(folder):
    made = _read(folder / "server.pem").extensions
    assert not made.get_extension_for_class(x509.BasicConstraints).value.ca
    assert not made.get_extension_for_class(x509.KeyUsage).value.key_cert_sign


def test_keys_are_for_their_owner_only(folder):
    for name in ("ca-key.pem", "server-key.pem"):
        assert stat.S_IMODE((folder / name).stat().st_mode) == 0o600


def test_a_renewed_certificate_is_by_the_same_root(folder):
    before = (folder / "ca.pem").read_bytes()
    tls.make_server_certificate(folder, ["new.example.org"], NOW_S + 86_400)
    assert (folder / "ca.pem").read_bytes() == before
    _read(folder / "server.pem").verify_directly_issued_by(_read(folder / "ca.pem"))
    assert tls.certificate_end(folder).timestamp() > NOW_S + tls.SERVER_DAYS * 86_400


@pytest.mark.parametrize("name", ["städtchen.example", "x" * 300 + "ü"])
def test_a_name_that_no_certificate_can_have_is_refused(folder, name):
    with pytest.raises(UsageError, match="host name in ASCII"):
        tls.make_server_certificate(folder, [name], NOW_S)


def test_without_the_roots_key_there_is_no_certificate(folder):
    (folder / "ca-key.pem").unlink()
    with pytest.raises(UsageError, match="Restore it"):
        tls.make_server_certificate(folder, ["a.example"], NOW_S)


def test_a_private_key_beside_the_certificate_is_not_sent_in_an_invitation(tmp_path):
    tls.make_certificate_authority(tmp_path, "choir", 1_800_000_000)
    alone = (tmp_path / tls.CA_FILE).read_text()
    both = alone + (tmp_path / tls.CA_KEY_FILE).read_text()
    key = SigningKey(bytes(range(32)))
    invite = Invite(
        "choir", key.verify_key(), "choir.example.org:9092", alone,
        ModelRelease.sign(key, "choir", "a" * 64, SharedAdapterSpec(), 10), ("b" * 64,), 4, 3,
        Federation(name="choir"), 10, 100, None,
    )  # fmt: skip
    assert invite.signed(key).root_certificate == alone
    with pytest.raises(BadMessage, match="no private key"):
        replace(invite, root_certificate=both).signed(key)
