/**
 * Composes delivery status notifications: multipart/report (RFC 6522) with a text for people, the
 * delivery status for programs (RFC 3464) and the original's header or content.
 *
 * Everything in a report that came from outside passes through safe_text.ts or an encoding; the
 * report travels as 7 bits wherever that is possible. Mail that went by SMTPUTF8 is reported on by
 * SMTPUTF8 (RFC 6533); downgrade.ts makes the twin of such a report for hosts that do not offer it.
 */
import { Buffer } from "node:buffer";
import type {
  BodyStore,
  Clock,
  ComposedReport,
  Ids,
  Reporter,
  ReportRequest,
} from "../../actors/ports.ts";
import { reportId } from "../../actors/reports.ts";
import type { DkimSigner } from "../dkim/signer.ts";
import { dateTime, deliveryStatus } from "./delivery_status.ts";
import { humanText } from "./human_text.ts";
import { type OriginalPart, originalPart } from "./original.ts";
import { quotedPrintable } from "./quoted_printable.ts";
import { asciiLine, field, isAscii, oneLine } from "./safe_text.ts";

export interface DsnOptions {
  /** Our host name: Reporting-MTA, and the domain of From and Message-ID. */
  readonly hostname: string;
  readonly bodies: BodyStore;
  readonly clock: Clock;
  readonly ids: Ids;
  /** Signs reports; absent: they are not signed. */
  readonly signer?: Pick<DkimSigner, "beginOwn">;
}

const SUBJECTS = {
  failed: "Mail not delivered",
  delayed: "Mail delayed",
  relayed: "Mail relayed",
} as const;

/** What a chunk for the body store may measure. */
const CHUNK = 64 * 1024;

interface Part {
  readonly contentType: string;
  readonly encoding: OriginalPart["encoding"];
  readonly content: Buffer;
}

export class DsnComposer implements Reporter {
  readonly #options: DsnOptions;

  constructor(options: DsnOptions) {
    this.#options = options;
  }

  /**
   * Composes and stages a report.
   * @throws StoreUnavailable when it cannot be staged; nothing is left behind then
   */
  async compose(report: ReportRequest): Promise<ComposedReport> {
    const { bodies, hostname, ids } = this.#options;
    const [{ message }] = report;
    const { mailFrom, dsn } = message;
    // RET is about failures alone (RFC 3461, section 4.3). RFC 8689: what had to go over TLS alone
    // does not come back whole.
    const full = dsn.ret === "FULL" && !message.requireTLS &&
      report.some(({ kind }) => kind === "failed");
    const original = await originalPart(bodies, {
      sha256: message.body,
      smtputf8: message.smtputf8,
      full,
      unicodeReport: message.smtputf8 || !isAscii(mailFrom),
    });
    const smtputf8 = !isAscii(mailFrom) || message.smtputf8 && (
          original?.contentType.startsWith("message/global") === true ||
          report.some((one) => !isAscii(one.message.rcptTo))
        );
    const parts = [
      textPart(humanText(report, hostname, attachedOf(original))),
      statusPart(deliveryStatus(report, hostname, smtputf8), smtputf8),
      ...(original ? [original] : []),
    ];
    const id = ids.next();
    const messageId = reportId(id, hostname);
    const boundary = boundaryFor(id, parts);
    const header = this.#header(report, { messageId, boundary, smtputf8 });
    const staged = await this.#stage(header, boundary, parts);
    const has8bit = smtputf8 || parts.some((part) => part.encoding === "8bit");
    return { ...staged, messageId, has8bit, smtputf8 };
  }

  #header(
    report: ReportRequest,
    own: { messageId: string; boundary: string; smtputf8: boolean },
  ): string {
    const { hostname, clock } = this.#options;
    const [{ message, kind }, ...others] = report;
    const line = own.smtputf8 ? oneLine : asciiLine;
    const to = line(message.mailFrom, 400).replace(/[<>]/g, "?");
    const { rcptTo } = message;
    const about = others.length > 0
      ? `: ${report.length} recipients`
      : own.smtputf8 || isAscii(rcptTo)
      ? `: ${line(rcptTo, 400)}`
      : "";
    const subject = SUBJECTS[others.some((one) => one.kind === "failed") ? "failed" : kind];
    const original = validMessageId(message.messageId);
    return [
      field("Date", dateTime(clock.now())),
      field("From", `Mail Delivery System <MAILER-DAEMON@${hostname}>`),
      field("To", `<${to}>`),
      field("Subject", `${subject}${about}`),
      field("Message-ID", own.messageId),
      ...(original ? [field("In-Reply-To", original), field("References", original)] : []),
      field("Auto-Submitted", "auto-replied"), // RFC 3834, section 5
      field("MIME-Version", "1.0"),
      "Content-Type: multipart/report; report-type=delivery-status;\r\n" +
      ` boundary="${own.boundary}"\r\n`,
    ].join("");
  }

  async #stage(
    header: string,
    boundary: string,
    parts: readonly Part[],
  ): Promise<Pick<ComposedReport, "body" | "signatures" | "discard">> {
    const { bodies, signer } = this.#options;
    const writer = bodies.create();
    try {
      const signature = signer?.beginOwn(Buffer.from(header));
      const write = async (octets: Uint8Array) => {
        signature?.body(octets);
        for (let at = 0; at < octets.length; at += CHUNK) {
          await writer.write(octets.subarray(at, at + CHUNK));
        }
      };
      await writer.write(Buffer.from(`${header}\r\n`));
      for (const { contentType, encoding, content } of parts) {
        const begin = `--${boundary}\r\nContent-Type: ${contentType}\r\n` +
          `Content-Transfer-Encoding: ${encoding}\r\n\r\n`;
        await write(Buffer.from(begin));
        await write(content);
        await write(Buffer.from("\r\n"));
      }
      await write(Buffer.from(`--${boundary}--\r\n`));
      const signatures = await signature?.finish();
      const body = await writer.finish();
      return { body, ...(signatures ? { signatures } : {}), discard: () => writer.discard() };
    } catch (error) {
      await writer.discard();
      throw error;
    }
  }
}

/** In-Reply-To and References repeat the original's id only where it is one: RFC 5322, 3.6.4. */
function validMessageId(id: string | null): string | undefined {
  const bare = id?.trim().replace(/^<(.*)>$/, "$1");
  return bare !== undefined && /^[!-;=?-~]{1,250}$/.test(bare) && bare.includes("@")
    ? `<${bare}>`
    : undefined;
}

function textPart(text: string): Part {
  const contentType = `text/plain; charset=${isAscii(text) ? "us-ascii" : "utf-8"}`;
  const octets = Buffer.from(text);
  const short = text.split("\r\n").every((line) => line.length <= 900);
  return isAscii(text) && short
    ? { contentType, encoding: "7bit", content: octets }
    : { contentType, encoding: "quoted-printable", content: latin1(quotedPrintable(octets)) };
}

function statusPart(status: string, unicodeReport: boolean): Part {
  const content = Buffer.from(status);
  return unicodeReport
    ? { contentType: "message/global-delivery-status", encoding: "8bit", content }
    : { contentType: "message/delivery-status", encoding: "7bit", content };
}

const latin1 = (text: string): Buffer => Buffer.from(text, "latin1");

function attachedOf(original: OriginalPart | undefined): Parameters<typeof humanText>[2] {
  if (!original) return { what: "nothing" };
  return { what: /headers$/.test(original.contentType) ? "header" : "message" };
}

/** A boundary that no part contains (RFC 2046, section 5.1.1). */
function boundaryFor(id: string, parts: readonly Part[]): string {
  for (let n = 0;; n++) {
    const boundary = `=_${n}_${id}`;
    if (!parts.some((part) => part.content.includes(boundary))) return boundary;
  }
}
