/**
 * Composes a message (RFC 5322, MIME) from its parts with nodemailer's MailComposer, as a stream.
 * Recipients in bcc are in the envelope only.
 */
import { Buffer } from "node:buffer";
import MailComposer from "nodemailer/lib/mail-composer";
import type { ComposeRequest } from "./compose_request.ts";

/** What is used of the package, which brings no types. */
type Compose = new (mail: Readonly<Record<string, unknown>>) => {
  compile(): { createReadStream(): AsyncIterable<Uint8Array> };
};

/** Fields that a message gets beside its parts. */
export interface Stamp {
  /** In angle brackets. */
  readonly messageId: string;
  /** Epoch milliseconds. */
  readonly date: number;
}

const crlf = (text: string): string => text.replace(/\r\n|\r|\n/g, "\r\n");

/** The octets of the message, lines ended with CRLF. */
export function compose(request: ComposeRequest, { messageId, date }: Stamp) {
  const { from, to = [], cc = [], subject, text, html, attachments = [], headers } = request;
  const mail = new (MailComposer as Compose)({
    from,
    to,
    cc,
    subject: subject ?? "",
    ...(text === undefined ? {} : { text: crlf(text) }),
    ...(html === undefined ? {} : { html: crlf(html) }),
    attachments: attachments.map(({ filename, content, contentType, cid }) => ({
      filename: filename ?? false,
      content: Buffer.from(content, "base64"),
      contentType: contentType ?? "application/octet-stream",
      contentTransferEncoding: "base64",
      ...(cid === undefined ? {} : { cid }),
    })),
    headers: headers ?? {},
    messageId,
    date: new Date(date),
    // Content is what the request holds, never a file of this host or something it fetches.
    disableFileAccess: true,
    disableUrlAccess: true,
  });
  return mail.compile().createReadStream();
}
