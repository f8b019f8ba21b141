/**
 * Submits through programs of others: Python's smtplib and swaks.
 */
import { run } from "./postfix.ts";

const PYTHON = new URL("./python/", import.meta.url).pathname;

export interface Submitted {
  readonly extensions: readonly string[];
  /** Protocol version of TLS, null without. */
  readonly tls: string | null;
  readonly refused: Readonly<Record<string, unknown>>;
  /** Octets of the message. */
  readonly size: number;
  /** SHA-256 of the body with LF line ends, hex. */
  readonly sha256: string;
}

export interface Submission {
  readonly port: number;
  readonly from: string;
  readonly to: string;
  /** One word; also the left side of the Message-ID. */
  readonly subject: string;
  readonly tls?: boolean;
  /** Octets of the message. */
  readonly size?: number;
}

/** @throws Error with what Python said when the server does not take the message */
export async function submitWithPython(message: Submission): Promise<Submitted> {
  const { port, from, to, subject, tls, size } = message;
  const output = await run("python3", [
    `${PYTHON}submit.py`,
    String(port),
    from,
    to,
    subject,
    ...(tls ? ["--tls"] : []),
    ...(size === undefined ? [] : ["--size", String(size)]),
  ]);
  return JSON.parse(output) as Submitted;
}

/** @returns the transcript that swaks prints. @throws Error with it when swaks fails */
export async function submitWithSwaks(message: Submission): Promise<string> {
  const { port, from, to, subject, tls } = message;
  return await run("swaks", [
    "--server",
    `127.0.0.1:${port}`,
    "--helo",
    "swaks.example",
    "--from",
    from,
    "--to",
    to,
    "--header",
    `Subject: ${subject}`,
    ...(tls ? ["--tls"] : []),
  ]);
}

/** A message with DSN parameters, from Python's sockets. */
export interface DsnSubmission {
  readonly port: number;
  readonly from: string;
  /** One word; the left side of the Message-ID. */
  readonly id: string;
  /** Of MAIL. With SMTPUTF8, the Subject is not ASCII. */
  readonly parameters?: string;
  /** Addresses, each with the parameters of its RCPT after a blank. */
  readonly to: readonly string[];
}

/** @throws Error with the command that was refused */
export async function submitWithDsn(message: DsnSubmission): Promise<void> {
  const { port, from, id, parameters = "", to } = message;
  await run("python3", [`${PYTHON}send_dsn.py`, String(port), from, id, parameters, ...to]);
}
