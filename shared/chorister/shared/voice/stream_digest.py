"""Digest of the shipped streaming weights, apart so that replacing them changes one line."""

STREAM_SHA256 = "0000000000000000000000000000000000000000000000000000000000000000"
