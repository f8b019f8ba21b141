/** Given a report, composes it and takes it apart; checks what holds for every one on the way. */
import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
// @ts-types="@types/mailparser"
import { type ParsedMail, simpleParser } from "mailparser";
import type { RecipientReport } from "../../../actors/ports.ts";
import type { EventData } from "../../../events/catalogue.ts";
import { DsnComposer } from "../../../src/dsn/compose.ts";
import { downgrade } from "../../../src/dsn/downgrade.ts";
import { MemoryBodies } from "./memory_bodies.ts";

export const NOW = Date.parse("2026-03-04T05:06:07.000Z");
export const ORIGINAL = "From: a@example.com\r\nSubject: Hello\r\nMessage-ID: <1@example.com>\r\n" +
  "\r\nbody text\r\n";

type Failed = EventData<"Failed">;

export type Changes = {
  message?: Partial<RecipientReport["message"]>;
  failure?: Partial<Failed>;
  report?: Omit<Partial<RecipientReport>, "at"> & { until?: number; at?: number | undefined };
  /** Further recipients of the submission. */
  others?: Pick<Changes, "message" | "failure" | "report">[];
  original?: string | Uint8Array | null;
};

export function given(
  bodies: MemoryBodies,
  { message, failure, report, original }: Changes,
): RecipientReport {
  return {
    kind: "failed",
    stream: "01J",
    arrived: "2026-03-04T01:00:00.000Z",
    at: Date.parse("2026-03-04T05:00:00.000Z"),
    attempt: 1,
    message: {
      account: null,
      mailFrom: "a@example.com",
      rcptTo: "b@example.net",
      size: 100,
      body: original === null ? "0".repeat(64) : bodies.put(original ?? ORIGINAL),
      messageId: "<1@example.com>",
      has8bit: false,
      smtputf8: false,
      requireTLS: false,
      dsn: {},
      submission: "01S",
      source: { kind: "smtp" },
      due: "2026-03-04T01:00:00.000Z",
      ...message,
    },
    failure: {
      permanent: true,
      result: "permerror",
      reason: "mx.example.net (192.0.2.1) said 550 5.1.1 No such user",
      code: 550,
      enhanced: "5.1.1",
      remoteMTA: "mx.example.net",
      reply: { code: 550, enhanced: "5.1.1", text: "No such user" },
      ...failure,
    },
    ...report,
  } as RecipientReport;
}

export function composer(bodies: MemoryBodies): DsnComposer {
  const clock = { now: () => NOW, monotonic: () => 0, timer: () => () => {} };
  let n = 0;
  const ids = { next: () => `01ID${n++}` };
  return new DsnComposer({ hostname: "mail.example.org", bodies, clock, ids });
}

/** Composes, and checks what holds for every report. */
export async function compose(changes: Changes = {}) {
  const bodies = new MemoryBodies();
  const { others = [], original } = changes;
  const composed = await composer(bodies).compose([
    given(bodies, changes),
    ...others.map((one) =>
      given(bodies, { ...one, ...(original === undefined ? {} : { original }) })
    ),
  ]);
  const raw = bodies.kept.get(composed.body.sha256) ?? Buffer.alloc(0);
  const text = raw.toString("latin1");
  assert.doesNotMatch(text.replaceAll("\r\n", ""), /[\r\n\0]/, "strict CRLF");
  for (const line of text.split("\r\n")) assert.ok(line.length <= 998, "line length");
  // deno-lint-ignore no-control-regex
  assert.equal(composed.has8bit, /[^\x00-\x7f]/.test(text) || composed.smtputf8);
  assert.equal(bodies.unfinished, 0);
  checkTwin(downgrade(raw));
  return { ...composed, raw, text, bodies, parts: partsOf(text) };
}

/** What holds for every twin. */
function checkTwin(twin: Buffer): void {
  const text = twin.toString("latin1");
  // deno-lint-ignore no-control-regex
  assert.doesNotMatch(text, /[^\x00-\x7f]/);
  assert.doesNotMatch(text.replaceAll("\r\n", ""), /[\r\n\0]/, "strict CRLF");
  for (const line of text.split("\r\n")) assert.ok(line.length <= 998, "line length");
  assert.doesNotMatch(text, /Content-Type: message\/global-delivery-status/);
}

export interface Part {
  readonly type: string;
  readonly encoding: string;
  readonly content: string;
}

export function partsOf(text: string): Part[] {
  const boundary = /\r\n boundary="([^"]+)"\r\n/.exec(text)?.[1] ?? "";
  const [, ...rest] = text.split(`\r\n--${boundary}`);
  assert.equal(rest.at(-1), "--\r\n");
  return rest.slice(0, -1).map((part) => {
    const [head = "", ...body] = part.split("\r\n\r\n");
    return {
      type: /Content-Type: ([^;\r\n]+)/.exec(head)?.[1] ?? "",
      encoding: /Content-Transfer-Encoding: (\S+)/.exec(head)?.[1] ?? "",
      content: body.join("\r\n\r\n"),
    };
  });
}

/** The fields of the delivery status, unfolded, in their groups. */
export function statusOf(parts: readonly Part[]): [string, string][][] {
  const unfolded = (parts[1]?.content ?? "").replace(/\r\n /g, " ");
  return unfolded.split("\r\n\r\n").map((group) =>
    group.split("\r\n").filter((line) => line !== "").map((line) => {
      const at = line.indexOf(": ");
      return [line.slice(0, at), line.slice(at + 2)];
    })
  );
}

export const fieldOf = (parts: readonly Part[], name: string) =>
  statusOf(parts).flat().find(([field]) => field === name)?.[1];

export const parse = (raw: Buffer): Promise<ParsedMail> =>
  simpleParser(raw, { keepDeliveryStatus: true });
