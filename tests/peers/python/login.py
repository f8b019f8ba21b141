"""Logs in and submits one message with smtplib: login.py PORT FROM TO USER [--implicit].

The password comes on standard input. Prints JSON: the mechanisms that were offered, the protocol
version of TLS, and the code with which the login was refused, if it was.
"""

import argparse
import json
import smtplib
import ssl
import sys

parser = argparse.ArgumentParser()
parser.add_argument("port", type=int)
parser.add_argument("sender")
parser.add_argument("recipient")
parser.add_argument("user")
parser.add_argument("--implicit", action="store_true", help="TLS at once")
options = parser.parse_args()
password = sys.stdin.readline().rstrip("\n")

context = ssl._create_unverified_context()
if options.implicit:
    client = smtplib.SMTP_SSL("127.0.0.1", options.port, timeout=20, context=context)
else:
    client = smtplib.SMTP("127.0.0.1", options.port, timeout=20)
    client.starttls(context=context)

refused = None
with client:
    client.ehlo()
    mechanisms = client.esmtp_features.get("auth", "").split()
    tls = client.sock.version()
    try:
        client.login(options.user, password)
        client.sendmail(
            options.sender,
            [options.recipient],
            f"From: <{options.sender}>\r\nSubject: python\r\n\r\nHello.\r\n",
        )
    except smtplib.SMTPAuthenticationError as error:
        refused = error.smtp_code

print(json.dumps({"mechanisms": mechanisms, "tls": tls, "refused": refused}))
