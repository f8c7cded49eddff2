"""Replaces the keys of a restic repository by one that opens it with the same password and next to no work.

    cheap_key.py REPOSITORY PASSWORD

restic makes a key so that every command which opens the repository computes for a while. Between tests that start
hundreds of commands this is most of what they wait for, and nothing that they look at. The format is that of restic's
design document, "Keys, Encryption and MAC": scrypt, AES-256 in counter mode and Poly1305-AES.
"""

import base64
import hashlib
import json
import os
import subprocess
import sys

CHEAP = {"N": 2, "r": 1, "p": 1}


def aes(cipher, key, data, *more):
    """What openssl makes of this data."""
    command = ["openssl", "enc", cipher, "-K", key.hex(), *more]
    return subprocess.run(command, input=data, capture_output=True, check=True).stdout


def mac(key, nonce, data):
    """Poly1305-AES; the key is AES's half and then Poly1305's."""
    r = int.from_bytes(key[16:], "little") & 0x0FFFFFFC0FFFFFFC0FFFFFFC0FFFFFFF
    total = 0
    for at in range(0, len(data), 16):
        total = (total + int.from_bytes(data[at : at + 16] + b"\1", "little")) * r % (2**130 - 5)
    pad = int.from_bytes(aes("-aes-128-ecb", key[:16], nonce, "-nopad"), "little")
    return ((total + pad) % 2**128).to_bytes(16, "little")


def derived(password, key):
    """The two keys that a password opens: the one that encrypts, and the one that signs."""
    both = hashlib.scrypt(
        password.encode(),
        salt=base64.b64decode(key["salt"]),
        n=key["N"],
        r=key["r"],
        p=key["p"],
        dklen=64,
        maxmem=2**30,
    )
    return both[:32], both[32:]


def main(repository, password):
    directory = os.path.join(repository, "keys")
    for name in os.listdir(directory):
        path = os.path.join(directory, name)
        with open(path, "rb") as file:
            key = json.load(file)
        if key["N"] == CHEAP["N"]:
            continue
        encrypts, signs = derived(password, key)
        sealed = base64.b64decode(key["data"])
        nonce, text, tag = sealed[:16], sealed[16:-16], sealed[-16:]
        if tag != mac(signs, nonce, text):
            print(f"{path} does not open with this password: it stays as it is")
            continue
        plain = aes("-aes-256-ctr", encrypts, text, "-iv", nonce.hex())

        key.update(CHEAP)
        encrypts, signs = derived(password, key)
        text = aes("-aes-256-ctr", encrypts, plain, "-iv", nonce.hex())
        key["data"] = base64.b64encode(nonce + text + mac(signs, nonce, text)).decode()
        new = json.dumps(key).encode()
        with open(os.path.join(directory, hashlib.sha256(new).hexdigest()), "xb") as file:
            file.write(new)
            os.fchmod(file.fileno(), 0o400)
        os.remove(path)


main(*sys.argv[1:])
