"""Verifies each case on standard input with PyJWT, and prints what it found."""

import json
import sys

import jwt

def verify(case):
    kid = jwt.get_unverified_header(case["token"]).get("kid")
    for key in jwt.PyJWKSet.from_dict(case["keys"]).keys:
        if key.key_id == kid and key.public_key_use == "sig":
            return jwt.decode(
                case["token"],
                key,
                algorithms=["RS256"],
                audience=case["audience"],
                issuer=case["issuer"],
                subject=case["subject"],
                options={
                    "require": ["iss", "sub", "aud", "iat", "nbf", "exp", "jti"],
                    "strict_aud": True,
                },
            )
    raise jwt.InvalidKeyError("no key has the kid")

def attempt(case):
    try:
        return {"claims": verify(case)}
    except (jwt.PyJWTError, ValueError) as refusal:
        return {"refusal": repr(refusal)}

json.dump([attempt(case) for case in json.load(sys.stdin)], sys.stdout)
