/**
 * Sends TLS reports (RFC 8460): once per recipient domain and UTC day, some time after the day has
 * ended, to the places that the domain's TXT record names.
 *
 *   - by mail: the message and the word that it was sent are one append, so that there is either
 *     both or nothing
 *   - by HTTPS: that it is begun is on disk before anything is; what a crash interrupts is not done
 *     again, since nobody knows what came of it
 *
 * Domains without a record get none. What cannot be found out or handed over is tried again each
 * hour until a day after the first chance.
 */
import { Buffer } from "node:buffer";
import { gzipSync } from "node:zlib";
import { decide } from "../../../actors/message.ts";
import type { BodyStore, Clock, EventStore, Ids, Log } from "../../../actors/ports.ts";
import type { EventData, FactOf } from "../../../events/catalogue.ts";
import {
  type PolicyTally,
  reportStream,
  type TlsReportRow,
} from "../../../events/projections/tls_reports.ts";
import type { StagedBody, StreamAppend } from "../../../events/store.ts";
import { type HttpsAnswer, HttpsError, type HttpsRequest } from "../../https.ts";
import type { DkimSigner } from "../../dkim/signer.ts";
import { asciiName } from "../../dns/names.ts";
import { DnsError, type Resolver } from "../../ports.ts";
import { reportDocument, type ReportFacts, reportIdentity } from "./document.ts";
import { reportMessage, reportSender } from "./message.ts";
import { parseReportRecord, type ReportPlace, type ReportRecord } from "./record.ts";

export interface ReporterPorts {
  readonly clock: Pick<Clock, "now">;
  readonly ids: Ids;
  readonly log: Log;
  readonly store: Pick<EventStore, "append" | "version">;
  readonly bodies: Pick<BodyStore, "create">;
  readonly resolver: Resolver;
  /** @throws HttpsError */
  readonly https: (request: HttpsRequest, signal: AbortSignal) => Promise<HttpsAnswer>;
  /** Up to `limit` rows with a greater id, in the order of their ids. */
  readonly rows: (after: string, limit: number) => readonly TlsReportRow[];
  /** Our host name. */
  readonly hostname: string;
  /** Signs reports that go by mail (RFC 8460, section 3); absent: they are not signed. */
  readonly signer?: Pick<DkimSigner, "beginOwn">;
}

type Sent = EventData<"TLSReportSent">["to"][number];

const DAY = 86_400_000;
/** From the end of the day; section 5.5 of RFC 8460 gives up after 24 hours of trying. */
const GIVE_UP = DAY + 6 * 3_600_000;
const PAGE = 100;
const POST_DEADLINE = 60_000;
/** Nobody reads what a receiver says about a report. */
const ANSWER_LIMIT = 64 * 1024;

export class TlsReporter {
  readonly #ports: ReporterPorts;
  /** Rows that this process started, and whose hand-over it knows to have failed. */
  readonly #failed = new Set<string>();
  readonly #results: Record<string, number> = { mailto: 0, https: 0, failed: 0 };

  constructor(ports: ReporterPorts) {
    this.#ports = ports;
  }

  /** Reports so far, by how they went. */
  get results(): Readonly<Record<string, number>> {
    return this.#results;
  }

  /**
   * Sends the reports about all days that have ended.
   * @param off reports are not made any more: what is left of them is closed
   * @returns whether some have to be tried again
   * @throws StoreUnavailable
   */
  async run(signal: AbortSignal, off = false): Promise<boolean> {
    const today = new Date(this.#ports.clock.now()).toISOString().slice(0, 10);
    let waiting = false;
    for (let after = "";;) {
      const page = this.#ports.rows(after, PAGE);
      for (const row of page) {
        after = row.id;
        if (row.day >= today || signal.aborted) return waiting;
        if (off) await this.#close(row, { to: [], notSent: "reports are turned off" });
        else if (!await this.#report(row, signal)) waiting = true;
      }
      if (page.length < PAGE) return waiting;
    }
  }

  /** @returns whether the row is done with */
  async #report(row: TlsReportRow, signal: AbortSignal): Promise<boolean> {
    const { domain, day } = row;
    const late = this.#ports.clock.now() >= Date.parse(`${day}T00:00:00Z`) + DAY + GIVE_UP;
    const record = await this.#record(domain, signal);
    if (record instanceof DnsError) {
      if (!late) return false;
      await this.#close(row, { to: [], notSent: `no answer for the record: ${record.message}` });
      return true;
    }
    if (!record.ok) {
      await this.#close(row, { to: [], notSent: record.why });
      return true;
    }
    const facts: ReportFacts = {
      domain,
      day,
      submitter: this.#ports.hostname,
      policies: JSON.parse(row.policies) as PolicyTally[],
    };
    const report = gzipSync(JSON.stringify(reportDocument(facts)));
    const posted = await this.#postAll(row, record.places, report, signal);
    if (signal.aborted) return false;
    const mails = record.places.filter((place) => place.kind === "mailto");
    const again = mails.length === 0 && !late &&
      posted.every(({ failed }) => failed !== undefined && failed !== INTERRUPTED);
    if (again) {
      this.#failed.add(row.id);
      return false;
    }
    await this.#send(row, facts, report, posted, mails);
    return true;
  }

  async #record(domain: string, signal: AbortSignal): Promise<ReportRecord | DnsError> {
    const name = asciiName(`_smtp._tls.${domain}`);
    if (name === undefined) return { ok: false, why: "the domain is too long to have a record" };
    try {
      const { records } = await this.#ports.resolver.query(name, "TXT", signal);
      return parseReportRecord(records);
    } catch (error) {
      if (error instanceof DnsError) return error;
      throw error;
    }
  }

  async #postAll(
    row: TlsReportRow,
    places: readonly ReportPlace[],
    report: Uint8Array,
    signal: AbortSignal,
  ): Promise<Sent[]> {
    const targets = places.filter((place) => place.kind === "https");
    if (targets.length === 0) return [];
    if (row.state === "started" && !this.#failed.has(row.id)) {
      return targets.map(({ uri }) => ({ uri, failed: INTERRUPTED }));
    }
    const { domain, day } = row;
    if (row.state !== "started") {
      await this.#append({ type: "TLSReportStarted", data: { domain, day } });
    }
    const sent: Sent[] = [];
    for (const { uri, host, port, path } of targets) {
      const failed = await this.#post({ host, port, path }, report, signal);
      sent.push({ uri, ...(failed === undefined ? {} : { failed }) });
    }
    return sent;
  }

  /** @returns why it failed; undefined when it did not */
  async #post(
    to: { readonly host: string; readonly port: number; readonly path: string },
    report: Uint8Array,
    signal: AbortSignal,
  ): Promise<string | undefined> {
    try {
      const { status } = await this.#ports.https({
        method: "POST",
        ...to,
        headers: { "content-type": "application/tlsrpt+gzip" },
        body: report,
        // Reports tell of broken certificates, and may meet one (RFC 8460, section 3).
        verify: false,
        limit: ANSWER_LIMIT,
        deadline: POST_DEADLINE,
      }, signal);
      return status >= 200 && status < 300 ? undefined : `the answer was ${status}`;
    } catch (error) {
      if (error instanceof HttpsError) return error.message;
      throw error;
    }
  }

  /** Enqueues the report for each address, together with the word that it was sent. */
  async #send(
    row: TlsReportRow,
    facts: ReportFacts,
    report: Uint8Array,
    posted: readonly Sent[],
    mails: readonly (ReportPlace & { kind: "mailto" })[],
  ): Promise<void> {
    const { clock, ids, hostname } = this.#ports;
    const to: Sent[] = [...posted];
    const streams: StreamAppend[] = [];
    const bodies: StagedBody[] = [];
    const writers: { discard(): Promise<void> }[] = [];
    try {
      for (const { uri, address } of mails) {
        const [stream, submission] = [ids.next(), ids.next()];
        const messageId = `<${submission}@${hostname}>`;
        const now = clock.now();
        const own = { to: address, messageId, now, unique: submission, report };
        const writer = this.#ports.bodies.create();
        writers.push(writer);
        const octets = await signed(reportMessage({ ...facts, ...own }), this.#ports.signer);
        for (let at = 0; at < octets.length; at += CHUNK) {
          await writer.write(octets.subarray(at, at + CHUNK));
        }
        const body = await writer.finish();
        bodies.push(body);
        const enqueued = enqueue({ address, messageId, submission, body, hostname, now });
        streams.push({ stream, expectedVersion: 0, facts: enqueued });
        to.push({ uri, message: stream });
      }
      await this.#close(row, { to, reportId: reportIdentity(facts) }, streams, bodies);
    } catch (error) {
      for (const writer of writers) await writer.discard();
      throw error;
    }
  }

  async #close(
    { id, domain, day }: TlsReportRow,
    outcome: Omit<EventData<"TLSReportSent">, "domain" | "day">,
    streams: readonly StreamAppend[] = [],
    bodies: readonly StagedBody[] = [],
  ): Promise<void> {
    const data = { domain, day, ...outcome };
    await this.#append({ type: "TLSReportSent", data }, streams, bodies);
    this.#failed.delete(id);
    for (const { uri, message, failed } of outcome.to) {
      const how = failed !== undefined ? "failed" : message !== undefined ? "mailto" : "https";
      this.#results[how] = (this.#results[how] ?? 0) + 1;
      const about = { domain, day, to: uri };
      if (failed === undefined) this.#ports.log.info("a TLS report was sent", about);
      else this.#ports.log.warn("a TLS report was not taken", { ...about, why: failed });
    }
  }

  async #append(
    fact: FactOf<"TLSReportStarted"> | FactOf<"TLSReportSent">,
    streams: readonly StreamAppend[] = [],
    bodies: readonly StagedBody[] = [],
  ): Promise<void> {
    const { domain, day } = fact.data;
    const stream = reportStream(domain, day);
    const expectedVersion = await this.#ports.store.version(stream);
    const own = { stream, expectedVersion, facts: [fact] };
    await this.#ports.store.append([own, ...streams], bodies);
  }
}

const CHUNK = 64 * 1024;
const INTERRUPTED = "interrupted, outcome unknown";

/** The message with its DKIM-Signature fields before it. */
async function signed(
  message: Uint8Array,
  signer: ReporterPorts["signer"],
): Promise<Uint8Array> {
  const headerEnd = Buffer.from(message).indexOf("\r\n\r\n") + 2;
  const signature = signer?.beginOwn(message.subarray(0, headerEnd));
  if (!signature) return message;
  signature.body(message.subarray(headerEnd + 2));
  return Buffer.concat([Buffer.from((await signature.finish()).join("")), message]);
}

/** A message of ours: nobody is told what became of it, and TLS is no condition (section 5.3). */
function enqueue(
  { address, messageId, submission, body, hostname, now }: {
    readonly address: string;
    readonly messageId: string;
    readonly submission: string;
    readonly body: StagedBody;
    readonly hostname: string;
    readonly now: number;
  },
) {
  const data: EventData<"Enqueued"> = {
    account: null,
    mailFrom: reportSender(hostname),
    rcptTo: address,
    size: body.size,
    body: body.sha256,
    messageId,
    has8bit: false,
    smtputf8: false,
    requireTLS: false,
    tlsOptional: true,
    dsn: { notify: ["NEVER"] },
    submission,
    source: { kind: "tlsrpt" },
    due: new Date(now).toISOString(),
  };
  return decide({ type: "Enqueue", data }, undefined);
}
