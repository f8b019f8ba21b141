"""Parses a delivery status notification with Python's email package: parse_report.py FILE.

Prints JSON: content type and parameters, the types of the parts, the fields of the delivery-status
part (one object for the message, one for each recipient), and every defect that the parser found.
"""

import email
import email.policy
import json
import sys

with open(sys.argv[1], "rb") as file:
    message = email.message_from_binary_file(file, policy=email.policy.default)

parts = list(message.iter_parts())
status = [part for part in parts if part.get_content_type() == "message/delivery-status"]
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
            "parts": [part.get_content_type() for part in parts],
            "text": parts[0].get_content() if parts else "",
            "status": [
                {name: str(value) for name, value in block.items()}
                for part in status
                for block in part.get_payload()
            ],
            "original": parts[-1].as_string() if len(parts) > 2 else "",
            "defects": [str(defect) for part in message.walk() for defect in part.defects],
        }
    )
)
