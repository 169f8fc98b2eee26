"""A digest is compared, and nothing else is done with a bundle."""

import hashlib

import pytest

from chorister.client.bundle_guard import MAX_BUNDLE_BYTES, BadBundle, BundleGuard
from chorister.shared.bundle import BUNDLE_SHA256, make_bundle

GUARD = BundleGuard((BUNDLE_SHA256,))


def test_the_code_free_bundle_of_this_version_passes():
    GUARD.check_name(BUNDLE_SHA256)
    GUARD.check(BUNDLE_SHA256, make_bundle())


@pytest.mark.parametrize("named", ["", "x", "a" * 64, BUNDLE_SHA256.upper(), BUNDLE_SHA256[:-1]])
def test_another_name_is_refused_before_anything_is_fetched(named):
    with pytest.raises(BadBundle):
        GUARD.check_name(named)
    with pytest.raises(BadBundle):
        GUARD.check(named, make_bundle())


@pytest.mark.parametrize("content", [b"", b"PK", make_bundle() + b"\x00", make_bundle()[:-1]])
def test_other_bytes_under_the_right_name_are_refused(content):
    with pytest.raises(BadBundle, match=r"digest [0-9a-f]{64}"):
        GUARD.check(BUNDLE_SHA256, content)


def test_what_is_too_large_is_refused_even_if_it_is_listed():
    large = bytes(MAX_BUNDLE_BYTES + 1)
    name = hashlib.sha256(large).hexdigest()
    with pytest.raises(BadBundle, match="bytes"):
        BundleGuard((name,)).check(name, large)
