"""Digest of the shipped streaming weights, apart so that replacing them changes one line."""

STREAM_SHA256 = "0a18c64e70bdb2c896053eebb54a5660b9bcb1781964856e5f85e89798d0e8de"
