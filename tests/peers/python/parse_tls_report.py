"""Parses a TLS report that came by mail with Python's email package: parse_tls_report.py FILE.

Prints JSON: the header fields, content type and parts, the name of the attached file, the report
that is in it, and every defect that the parser found.
"""

import email
import email.policy
import gzip
import json
import sys

with open(sys.argv[1], "rb") as file:
    message = email.message_from_binary_file(file, policy=email.policy.default)

parts = list(message.iter_parts())
print(
    json.dumps(
        {
            "fields": {name: str(value) for name, value in message.items()},
            "type": message.get_content_type(),
            "reportType": message.get_param("report-type"),
            "parts": [part.get_content_type() for part in parts],
            "fileName": parts[-1].get_filename(),
            "report": json.loads(gzip.decompress(parts[-1].get_payload(decode=True))),
            "defects": [str(defect) for part in message.walk() for defect in part.defects],
        }
    )
)
