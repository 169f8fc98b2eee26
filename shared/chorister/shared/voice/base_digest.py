"""Digest of the shipped base weights, apart so that replacing the weights changes one line."""

BASE_SHA256 = "021bb794103736ed25bbca438d06b0240d454645dd9328f4977d799a194c180e"
