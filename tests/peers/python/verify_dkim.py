"""Verifies every DKIM signature of a message with dkimpy.

usage: verify_dkim.py MESSAGE RECORDS
RECORDS is a JSON object of TXT records by name. Prints a JSON list: domain, selector, verified.
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
signer = dkim.DKIM(message)
count = sum(1 for name, _ in signer.headers if name.lower() == b"dkim-signature")
results = []
for n in range(count):
    verifier = dkim.DKIM(message)
    try:
        verified = verifier.verify(idx=n, dnsfunc=txt)
    except dkim.DKIMException as error:
        verified = str(error)
    results.append([verifier.domain.decode(), verifier.selector.decode(), verified])
json.dump(results, sys.stdout)
