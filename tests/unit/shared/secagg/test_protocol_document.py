"""docs/protocol.md, read by somebody who has a library of hashes alone, gives the vectors."""

from __future__ import annotations

import hashlib
import hmac
import json
import math
import re
from pathlib import Path
from typing import Any

import cbor2
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

VECTORS: dict[str, Any] = json.loads(
    (Path(__file__).parents[3] / "vectors" / "secagg.json").read_text()
)
LOW, HIGH, TERMS, ROSTER = (bytes([i]) * 32 for i in (3, 4, 5, 6))


def _hkdf(ikm: bytes, salt: bytes, info: bytes) -> bytes:
    """RFC 5869, one block."""
    extracted = hmac.digest(salt, ikm, "sha256")
    return hmac.digest(extracted, info + b"\x01", "sha256")


def test_section_5_keys() -> None:
    keys = VECTORS["keys"]
    low = X25519PrivateKey.from_private_bytes(b"\x01" * 32)
    agreed = low.exchange(X25519PublicKey.from_public_bytes(bytes.fromhex(keys["public_high"])))
    assert agreed.hex() == keys["agreed"]
    sealing = _hkdf(agreed, TERMS, b"chorister/1 share sealing\x00" + ROSTER + LOW + HIGH)
    assert sealing.hex() == keys["sealing_key"]
    assert AESGCM(sealing).encrypt(bytes(12), b"\x07" * 66, None).hex() == keys["sealed"]
    commitment = hashlib.sha256(b"chorister/1 seed commitment\x00" + TERMS + LOW + b"\x08" * 32)
    assert commitment.hexdigest() == keys["seed_commitment"]


def test_section_6_views() -> None:
    keys = VECTORS["keys"]
    members = (1 << 0 | 1 << 1 | 1 << 9).to_bytes(2, "little")
    assert members.hex() == keys["members"]
    body = cbor2.dumps([TERMS, ROSTER, members], canonical=True)
    view = hashlib.sha256(b"chorister/1 view\x00" + body).digest()
    assert view.hex() == keys["view"]
    agreed = bytes.fromhex(keys["agreed"])
    seed = _hkdf(agreed, TERMS, b"chorister/1 pairwise mask\x00" + view + LOW + HIGH)
    assert seed.hex() == keys["mask_seed"]


def test_section_7_shares() -> None:
    sharing, p = VECTORS["sharing"], 2**256 + 297
    points = [(i + 1, int(share, 16)) for i, share in enumerate(sharing["shares"])]
    for chosen in (points[:3], points[2:], points[::2]):
        secret = 0
        for x, y in chosen:
            weight = 1
            for other, _ in chosen:
                if other != x:
                    weight = weight * other * pow(other - x, -1, p) % p
            secret = (secret + y * weight) % p
        assert secret.to_bytes(32, "big").hex() == sharing["secret"]
    share = b"\x00" + b"\x09" * 32
    for kind, expected in (("seed", "share_commitment"), ("key", "key_share_commitment")):
        label = f"chorister/1 {kind} share commitment".encode() + b"\x00"
        digest = hashlib.sha256(label + ROSTER + b"\x00\x01\x00\x02" + share).hexdigest()
        assert digest == VECTORS["keys"][expected]


def test_section_8_masks() -> None:
    stream = Cipher(algorithms.AES256(b"\x0a" * 32), modes.CTR(bytes(16))).encryptor()
    words = stream.update(bytes(16))
    first = [int.from_bytes(words[i : i + 4], "little") for i in range(0, 16, 4)]
    assert first == VECTORS["masks"]["first"]


def test_section_9_signatures() -> None:
    messages = {name: cbor2.loads(bytes.fromhex(d)) for name, d in VECTORS["round"]["messages"]}
    roster, bundle, masked, survivors = (
        messages[name] for name in ("roster", "bundle", "masked", "survivors")
    )
    terms = hashlib.sha256(bytes.fromhex(dict(VECTORS["round"]["messages"])["terms"])).digest()
    own = messages["advertisement"]
    identity = Ed25519PublicKey.from_public_bytes(own[1])

    def signed(label: str, body: bytes, signature: bytes) -> None:
        identity.verify(signature, label.encode() + b"\x00" + body)

    def cbor(plain: object) -> bytes:
        return cbor2.dumps(plain, canonical=True)

    assert own[5] == roster[1] == terms
    assert own[1:] in roster[2]
    signed("chorister/1 advertisement", cbor([terms, own[1], *own[6:9]]), own[9])
    digest = hashlib.sha256(bytes.fromhex(dict(VECTORS["round"]["messages"])["roster"])).digest()
    assert bundle[1] == digest
    signed("chorister/1 shares", hashlib.sha256(cbor(bundle[1:3])).digest(), bundle[3])
    body = cbor([masked[1], hashlib.sha256(masked[2]).digest()])
    signed("chorister/1 masked input", body, masked[3])
    vote = messages["vote"]
    signed("chorister/1 survivors", cbor([terms, survivors[1], survivors[2]]), vote[1])
    reveal = messages["reveal"]
    bytes_of_survivors = bytes.fromhex(dict(VECTORS["round"]["messages"])["survivors"])
    body = hashlib.sha256(cbor([bytes_of_survivors, *reveal[1:4]])).digest()
    signed("chorister/1 reveal", body, reveal[4])


def test_section_8_rotation() -> None:
    vectors = VECTORS["rotation"]
    seed = hashlib.sha256(b"chorister/1 rotation\x00" + ROSTER).digest()
    assert seed.hex() == vectors["seed"]
    for d in (1, 3, 4, 5, 20):
        size = 2 ** (d.bit_length() - 1)
        stream = Cipher(algorithms.AES256(seed), modes.CTR(bytes(16))).encryptor().update(bytes(8))
        bits = [stream[i >> 3] >> (i & 7) & 1 for i in range(2 * size)]
        values = [float(i + 1) for i in range(d)]
        for pass_, start in enumerate([0] if size == d else [0, d - size]):
            signed = [values[start + j] * (-1) ** bits[pass_ * size + j] for j in range(size)]
            for i in range(size):
                # Entry (i, j) of Hadamard's matrix is -1 to the number of ones that i and j share.
                values[start + i] = sum(
                    v * (-1) ** (i & j).bit_count() for j, v in enumerate(signed)
                ) / math.sqrt(size)
        assert values == pytest.approx(vectors[f"d={d}"], abs=1e-8)


def test_every_test_that_the_threat_model_names_exists() -> None:
    root = Path(__file__).parents[4]
    text = (root / "docs" / "threat-model.md").read_text(encoding="utf-8")
    named = re.findall(r"`(test_\w+)(\.\.\.)?`", text)
    source = "\n".join(p.read_text(encoding="utf-8") for p in (root / "tests").rglob("test_*.py"))
    missing = [
        name
        for name, more in named
        if not re.search(f"def {name}" + ("" if more else r"\b"), source)
    ]
    assert not missing
    assert len(named) > 15
    for path in re.findall(r"`(tests/\S+\.py)`", text):
        assert (root / path).is_file()
