"""Reads reports as Mailman does, with flufl.bounce: detect_bounce.py FILE.

Prints JSON: the addresses of which it says that they failed for good, and those that failed for now.
"""

import email
import email.policy
import json
import sys

from flufl.bounce import all_failures

with open(sys.argv[1], "rb") as file:
    message = email.message_from_binary_file(file, policy=email.policy.compat32)

temporary, permanent = all_failures(message)
print(
    json.dumps(
        {
            "temporary": sorted(address.decode() for address in temporary),
            "permanent": sorted(address.decode() for address in permanent),
        }
    )
)
