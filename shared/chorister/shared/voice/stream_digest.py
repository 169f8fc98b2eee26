"""Digest of the shipped streaming weights, apart so that replacing them changes one line."""

STREAM_SHA256 = "f0c1a5ccd7f0004cace495b10cad6a0bfa67c252798fbb956a6858745c516faf"
