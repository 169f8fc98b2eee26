"""The certificate authority and the certificate of a server's connection.

The authority's key makes certificates for this server and is not used while it runs; devices pin
its certificate, so that the server's can be renewed without asking them. Not the enrolment
authority: that one says which devices exist.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from chorister.shared.errors import UsageError
from chorister.shared.files import write_atomically

CA_FILE = "ca.pem"
CA_KEY_FILE = "ca-key.pem"
CERTIFICATE_FILE = "server.pem"
KEY_FILE = "server-key.pem"
CA_DAYS = 3650
SERVER_DAYS = 397
LOOPBACK = ("127.0.0.1", "::1", "localhost")
_SKEW = timedelta(hours=1)


def make_certificate_authority(folder: Path, federation: str, now_s: int) -> None:
    """Write a new authority's key, for its owner only, and its certificate.

    Raises:
        OSError: the folder cannot be written.
    """
    key = ec.generate_private_key(ec.SECP384R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"Chorister {federation}"[:64])])
    begin = datetime.fromtimestamp(now_s, UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin - _SKEW)
        .not_valid_after(begin + timedelta(days=CA_DAYS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA384())
    )
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_atomically(folder / CA_KEY_FILE, _private(key), mode=0o600)
    write_atomically(folder / CA_FILE, certificate.public_bytes(Encoding.PEM), mode=0o644)


def make_server_certificate(folder: Path, names: Sequence[str], now_s: int) -> None:
    """Write a new key and a certificate for the server, by the authority in the same folder.

    Args:
        folder: with the authority's files.
        names: host names and addresses that devices dial; this machine's own are added.
        now_s: Unix time.

    Raises:
        UsageError: no authority there, or a name that none can have.
        OSError: the folder cannot be written.
    """
    try:
        issuer = x509.load_pem_x509_certificate((folder / CA_FILE).read_bytes())
        signer = load_pem_private_key((folder / CA_KEY_FILE).read_bytes(), password=None)
    except (OSError, ValueError) as error:
        raise UsageError(
            f"A certificate is signed with {CA_KEY_FILE}.", f"{folder}: {error}",
            "Restore it from a backup, or make a new server and new invitations.",
        ) from None  # fmt: skip
    if not isinstance(signer, ec.EllipticCurvePrivateKey):
        raise UsageError(
            f"{CA_KEY_FILE} is an elliptic curve key.", "another", "Restore it from a backup."
        )
    key = ec.generate_private_key(ec.SECP256R1())
    wanted = list(dict.fromkeys((*names, *LOOPBACK)))
    begin = datetime.fromtimestamp(now_s, UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, wanted[0][:64])]))
        .issuer_name(issuer.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin - _SKEW)
        .not_valid_after(begin + timedelta(days=SERVER_DAYS))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName([_name(n) for n in wanted]), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()),
            critical=False,
        )
        .sign(signer, hashes.SHA384())
    )
    write_atomically(folder / KEY_FILE, _private(key), mode=0o600)
    write_atomically(folder / CERTIFICATE_FILE, certificate.public_bytes(Encoding.PEM), mode=0o644)


def certificate_end(folder: Path) -> datetime:
    """Return when the server's certificate ends.

    Raises:
        UsageError: it cannot be read.
    """
    try:
        data = (folder / CERTIFICATE_FILE).read_bytes()
        return x509.load_pem_x509_certificate(data).not_valid_after_utc
    except (OSError, ValueError) as error:
        raise UsageError(
            "The server's certificate can be read.", f"{folder / CERTIFICATE_FILE}: {error}",
            "Make a new one: chorister server init --renew-certificate.",
        ) from None  # fmt: skip


def _name(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(text.strip("[]")))
    except ValueError:
        pass
    try:
        return x509.DNSName(text)
    except ValueError:
        raise UsageError(
            "A server is named by a host name in ASCII or an address.", repr(text)[:80],
            "Write an international name in its ASCII form (xn--...).",
        ) from None  # fmt: skip


def _usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs, key_cert_sign=signs, crl_sign=signs, content_commitment=False,
        key_encipherment=False, data_encipherment=False, key_agreement=False, encipher_only=False,
        decipher_only=False,
    )  # fmt: skip


def _private(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
