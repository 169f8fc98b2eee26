"""Digest of the shipped streaming weights, apart so that replacing them changes one line."""

STREAM_SHA256 = "7495228ab2e5aa7e18c031fb1ca97e8480bfcc63b5faae1b7b07c710c0d78834"
