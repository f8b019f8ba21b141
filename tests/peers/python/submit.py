"""Submits one message with smtplib: submit.py PORT FROM TO SUBJECT [--tls] [--size OCTETS].

Prints JSON: what the server announced, whether TLS was used, and the SHA-256 of the body with LF
line ends.
"""

import argparse
import hashlib
import json
import smtplib
import ssl

parser = argparse.ArgumentParser()
parser.add_argument("port", type=int)
parser.add_argument("sender")
parser.add_argument("recipient")
parser.add_argument("subject")
parser.add_argument("--tls", action="store_true")
parser.add_argument("--size", type=int, default=0, help="octets of the whole message")
options = parser.parse_args()

header = (
    f"From: <{options.sender}>\r\n"
    f"To: <{options.recipient}>\r\n"
    f"Subject: {options.subject}\r\n"
    "Date: Thu, 01 Jan 2026 00:00:00 +0000\r\n"
    f"Message-ID: <{options.subject}@peers.example>\r\n"
    "\r\n"
).encode()

# Lines that begin with dots, and are as long as a line may be: what gets stuffed must come out.
pattern = b"..begins with dots\r\n.\r\n" + b"x" * 998 + b"\r\n" + b"plain\r\n"
size = max(options.size - len(header), len(pattern))
body = bytearray(pattern * (size // len(pattern) + 1))
del body[size - 2 :]
body = bytes(body.rstrip(b"\r\n"))
body = body + b"y" * (size - 2 - len(body)) + b"\r\n"

with smtplib.SMTP("127.0.0.1", options.port, local_hostname="python.example", timeout=60) as client:
    tls = None
    if options.tls:
        client.starttls(context=ssl._create_unverified_context())
        tls = client.sock.version()
    client.ehlo()
    refused = client.sendmail(options.sender, [options.recipient], header + body)

print(
    json.dumps(
        {
            "extensions": sorted(client.esmtp_features),
            "tls": tls,
            "refused": refused,
            "size": len(header) + len(body),
            "sha256": hashlib.sha256(body.replace(b"\r\n", b"\n")).hexdigest(),
        }
    )
)
