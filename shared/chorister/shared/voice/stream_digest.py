"""Digest of the shipped streaming weights, apart so that replacing them changes one line."""

STREAM_SHA256 = "07c4e48b4f532ea4021d6df64c8e5d1dbd0bcc9d7a81e41a0a1f6ad487ea1161"
