"""Verifies every DKIM signature of a message with dkimpy.

usage: verify_dkim.py MESSAGE RECORDS [--tlsrpt]
RECORDS is a JSON object of TXT records by name. With --tlsrpt the rules of RFC 8460 hold.
Prints a JSON list: domain, selector, and true or what is wrong.
"""
import json
import sys

import dkim

records = json.loads(sys.argv[2])


def txt(name, timeout=5):
    record = records.get(name.decode().rstrip("."))
    return None if record is None else record.encode()


with open(sys.argv[1], "rb") as file:
    message = file.read()
tlsrpt = "--tlsrpt" in sys.argv[3:]
signer = dkim.DKIM(message)
count = sum(1 for name, _ in signer.headers if name.lower() == b"dkim-signature")
results = []
for n in range(count):
    verifier = dkim.DKIM(message, tlsrpt=tlsrpt)
    try:
        verified = verifier.verify(idx=n, dnsfunc=txt)
    except dkim.DKIMException as error:
        verified = str(error)
    domain, selector = verifier.domain or b"", verifier.selector or b""
    results.append([domain.decode(), selector.decode(), verified])
json.dump(results, sys.stdout)
