"""Digest of the shipped base weights, apart so that replacing the weights changes one line."""

BASE_SHA256 = "5745b3dd3ef6f4bf450d223fb87e8fc508fe728515fe7c4a8542c196a302ac7b"
