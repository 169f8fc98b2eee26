"""Digest of the shipped streaming weights, apart so that replacing them changes one line."""

STREAM_SHA256 = "1e88cbb41a6a69a0181bb30adb7fbd72a8fb7bc136a8669d85a915369fcb15ee"
