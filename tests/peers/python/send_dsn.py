"""Submits one message with DSN parameters: send_dsn.py PORT FROM ID MAIL-PARAMETERS RCPT…

Each RCPT is an address, followed by parameters after spaces. With SMTPUTF8 among the parameters of
MAIL the header has letters beyond ASCII. Prints the server's last reply.
"""

import socket
import sys

port, sender, name, parameters, *recipients = sys.argv[1:]
subject = "gr\u00fc\u00dfe" if "SMTPUTF8" in parameters else "hello"


def main() -> None:
    with socket.create_connection(("127.0.0.1", int(port)), timeout=20) as connection:
        stream = connection.makefile("rwb")

        def reply() -> str:
            while True:
                line = stream.readline().decode()
                if line[3:4] != "-":
                    return line.strip()

        def command(text: str, expected: str) -> str:
            stream.write(text.encode() + b"\r\n")
            stream.flush()
            answer = reply()
            if not answer.startswith(expected):
                sys.exit(f"{text}: {answer}")
            return answer

        reply()
        command("EHLO python.example", "250")
        command(f"MAIL FROM:<{sender}> {parameters}".strip(), "250")
        for recipient in recipients:
            address, _, rest = recipient.partition(" ")
            command(f"RCPT TO:<{address}> {rest}".strip(), "250")
        command("DATA", "354")
        header = f"From: <{sender}>\r\nSubject: {subject}\r\nMessage-ID: <{name}@peers.example>\r\n"
        print(command(f"{header}\r\ntext\r\n.", "250"))
        command("QUIT", "221")


main()
