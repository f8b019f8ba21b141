/**
 * A TLS report as a message (RFC 8460, section 5.3): multipart/report with a few words for people
 * and the gzipped JSON for programs. Everything in it is ASCII.
 */
import { Buffer } from "node:buffer";
import { dateTime } from "../../dsn/delivery_status.ts";
import { field } from "../../dsn/safe_text.ts";
import { type ReportFacts, reportFileName, reportIdentity } from "./document.ts";

export interface MessageFacts extends Omit<ReportFacts, "policies"> {
  readonly to: string;
  readonly messageId: string;
  /** Epoch milliseconds. */
  readonly now: number;
  /** Part of the boundary; unique. */
  readonly unique: string;
  /** The report, gzipped. */
  readonly report: Uint8Array;
}

/** Whom reports are from: replies and complaints reach whoever runs the host. */
export const reportSender = (hostname: string): string => `postmaster@${hostname}`;

export function reportMessage(facts: MessageFacts): Uint8Array {
  const { domain, day, submitter, to, messageId, now, unique, report } = facts;
  const boundary = `=_${unique}`; // base64 has no underscore
  const fileName = reportFileName(facts);
  const base64 = Buffer.from(report).toString("base64").replaceAll(/.{1,76}/g, "$&\r\n");
  const subject = `Report Domain: ${domain} Submitter: ${submitter} ` +
    `Report-ID: <${reportIdentity(facts)}>`;
  return Buffer.from(
    [
      field("Date", dateTime(now)),
      field("From", `<${reportSender(submitter)}>`),
      field("To", `<${to}>`),
      field("Subject", subject),
      field("Message-ID", messageId),
      field("TLS-Report-Domain", domain),
      field("TLS-Report-Submitter", submitter),
      // What the report complains of must not keep it from arriving (section 5.3; RFC 8689).
      field("TLS-Required", "No"),
      field("Auto-Submitted", "auto-generated"),
      field("MIME-Version", "1.0"),
      `Content-Type: multipart/report; report-type="tlsrpt";\r\n boundary="${boundary}"\r\n`,
      "\r\n",
      `--${boundary}\r\n`,
      "Content-Type: text/plain; charset=us-ascii\r\n",
      "Content-Transfer-Encoding: 7bit\r\n",
      "\r\n",
      `This is an aggregate TLS report (RFC 8460) from ${submitter}\r\n`,
      `about mail to ${domain} on ${day} (UTC).\r\n`,
      "\r\n",
      `--${boundary}\r\n`,
      "Content-Type: application/tlsrpt+gzip\r\n",
      "Content-Transfer-Encoding: base64\r\n",
      `Content-Disposition: attachment;\r\n filename="${fileName}"\r\n`,
      "\r\n",
      base64,
      "\r\n",
      `--${boundary}--\r\n`,
    ].join(""),
    "latin1",
  );
}
