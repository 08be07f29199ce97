"""An independent COSE implementation (PyPI ``cwt``) behind a pipe; p2pmed is not imported.

It runs in an environment of its own, because its cbor2 is older than ours. One JSON array of
commands comes in on standard input, one array of answers goes out on standard output:

* ``{"do": "verify", "raw", "external", "key"}`` -> ``{"payload": hex}`` or ``{"error": name}``
* ``{"do": "sign", "payload", "external", "seed", "key"}`` -> ``{"raw": hex}``, untagged

Bytes are hexadecimal. Messages are untagged as ours are; ``cwt`` wants tag 18, one byte.
"""

import json
import sys
from base64 import urlsafe_b64encode

from cwt import COSE, COSEKey

TAG_18 = b"\xd2"


def text(raw: bytes) -> str:
    return urlsafe_b64encode(raw).rstrip(b"=").decode("ascii")


def key_of(public: bytes, seed: bytes = b"") -> COSEKey:
    jwk = {"kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "kid": "-", "x": text(public)}
    if seed:
        jwk["d"] = text(seed)
    key = COSEKey.from_jwk(jwk)
    key._kid = public  # a JWK's kid is text; ours is the public key itself
    return key


def verify(command: dict) -> dict:
    public = bytes.fromhex(command["key"])
    try:
        payload = COSE.new(verify_kid=True).decode(
            TAG_18 + bytes.fromhex(command["raw"]),
            key_of(public),
            external_aad=bytes.fromhex(command["external"]),
        )
    except Exception as error:
        return {"error": type(error).__name__}
    return {"payload": payload.hex()}


def sign(command: dict) -> dict:
    public = bytes.fromhex(command["key"])
    raw = COSE.new().encode(
        bytes.fromhex(command["payload"]),
        key_of(public, bytes.fromhex(command["seed"])),
        protected={1: -8, 4: public},
        unprotected={},
        external_aad=bytes.fromhex(command["external"]),
    )
    assert raw.startswith(TAG_18)
    return {"raw": raw[1:].hex()}


if __name__ == "__main__":
    commands = {"verify": verify, "sign": sign}
    json.dump([commands[one["do"]](one) for one in json.load(sys.stdin)], sys.stdout)
