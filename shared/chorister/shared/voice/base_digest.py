"""Digest of the shipped base weights, apart so that replacing the weights changes one line."""

BASE_SHA256 = "6a48198ef716679c741cc66cff7f2ddb400af87041087aab661fb9d8731ed41f"
