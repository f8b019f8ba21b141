"""Parses a delivery status notification with Python's email package: parse_report.py FILE.

Prints JSON: content type and parameters, the types of the parts, the fields of the delivery-status
part (one object for the message, one for each recipient), the last part as it reads when decoded,
and every defect that the parser found.
"""

import email
import email.parser
import email.policy
import json
import quopri
import sys

UTF8 = email.policy.default.clone(utf8=True, refold_source="none")


def status_blocks(part):
    if part.get_content_type() == "message/delivery-status":
        return part.get_payload()
    # RFC 6533, section 4: the same fields in UTF-8, of which the parser only knows the first group.
    text = part.get_payload(0).as_bytes(policy=UTF8).decode("utf-8")
    parser = email.parser.HeaderParser(policy=email.policy.default)
    return [parser.parsestr(group) for group in text.strip("\n").split("\n\n")]


def decoded(part):
    if part.get_content_maintype() != "message":
        return part.get_payload(decode=True).decode("utf-8")
    octets = part.get_payload(0).as_bytes(policy=UTF8)
    # RFC 6533, section 4.2, lets these be encoded, and the parser does not undo it.
    if part.get("Content-Transfer-Encoding") == "quoted-printable":
        octets = quopri.decodestring(octets)
    return octets.decode("utf-8")


with open(sys.argv[1], "rb") as file:
    message = email.message_from_binary_file(file, policy=email.policy.default)

parts = list(message.iter_parts())
types = [part.get_content_type() for part in parts]
statuses = ("message/delivery-status", "message/global-delivery-status")
defects = [str(defect) for part in message.walk() for defect in part.defects]
print(
    json.dumps(
        {
            "type": message.get_content_type(),
            "reportType": message.get_param("report-type"),
            "from": message["From"],
            "to": message["To"],
            "subject": message["Subject"],
            "autoSubmitted": message["Auto-Submitted"],
            "returnPath": message["Return-Path"],
            "messageId": message["Message-ID"],
            "date": message["Date"],
            "parts": types,
            "text": parts[0].get_content() if parts else "",
            "status": [
                {name: str(value) for name, value in block.items()}
                for part in parts
                if part.get_content_type() in statuses
                for block in status_blocks(part)
            ],
            "original": decoded(parts[-1]) if len(parts) > 2 else "",
            "defects": defects,
        }
    )
)
