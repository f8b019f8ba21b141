/**
 * Questions and responses on the wire: RFC 1035, with EDNS0 (RFC 6891), the DO and AD bits
 * (RFC 3225; RFC 6840, section 5.7) and extended errors (RFC 8914). Encodes and decodes with
 * dns-packet, after frame.ts has checked what came in.
 */
import { Buffer } from "node:buffer";
// @ts-types="@types/dns-packet"
import {
  type Answer as PacketAnswer,
  AUTHENTIC_DATA,
  decode,
  DNSSEC_OK,
  encode,
  RECURSION_DESIRED,
} from "dns-packet";
import type { RecordData, RecordType } from "../ports.ts";
import { checkedCopy, FrameError, HEADER, withoutRecords } from "./frame.ts";

/** What a UDP response may measure without being fragmented anywhere (DNS Flag Day 2020). */
export const UDP_SIZE = 1232;

export interface Question {
  /** From `asciiName`. */
  readonly name: string;
  readonly type: RecordType;
}

/** A record of a type that is asked for; names in lower case. TTL in seconds. */
export type WireRecord = {
  [T in RecordType]: {
    readonly name: string;
    readonly type: T;
    readonly ttl: number;
    readonly data: RecordData[T];
  };
}[RecordType];

export interface Response {
  /** RCODE, extended by EDNS: 0 NOERROR, 2 SERVFAIL, 3 NXDOMAIN, 5 REFUSED … */
  readonly rcode: number;
  /** TC: ask again over TCP. No records are read then. */
  readonly truncated: boolean;
  /** AD, whoever set it. */
  readonly authenticated: boolean;
  readonly answers: readonly WireRecord[];
  /** Of the SOA in the authority section: how long a negative answer may be kept, in seconds. */
  readonly negativeTtl?: number;
  /** NS records in the authority section without a SOA: a referral, not an answer. */
  readonly referral: boolean;
  readonly extended?: { readonly code: number; readonly text: string };
}

export function encodeQuery(id: number, question: Question): Uint8Array {
  return encode({
    type: "query",
    id,
    flags: RECURSION_DESIRED | AUTHENTIC_DATA,
    questions: [{ name: question.name, type: question.type, class: "IN" }],
    additionals: [{
      type: "OPT",
      name: ".",
      udpPayloadSize: UDP_SIZE,
      extendedRcode: 0,
      ednsVersion: 0,
      flags: DNSSEC_OK,
      flag_do: true,
      options: [],
    }],
  });
}

const QR = 0x8000;
const OPCODE = 0x7800;
const TC = 0x0200;

/**
 * Reads the response to a question.
 * @returns undefined when the message is not the response to this question
 * @throws FrameError when it claims to be and cannot be read
 */
export function readResponse(
  message: Uint8Array,
  id: number,
  question: Question,
): Response | undefined {
  const header = Buffer.from(message.buffer, message.byteOffset, message.byteLength);
  if (header.length < HEADER || header.readUInt16BE(0) !== id) return undefined;
  const flags = header.readUInt16BE(2);
  if ((flags & QR) === 0 || (flags & OPCODE) !== 0) return undefined;
  const truncated = (flags & TC) !== 0;
  const packet = decodePacket(truncated ? withoutRecords(message) : checkedCopy(message));
  const asked = packet.questions?.[0];
  const same = asked?.name.toLowerCase() === question.name && asked.type === question.type &&
    asked.class === "IN";
  if (!same) return undefined;

  const opt = packet.additionals?.find((record) => record.type === "OPT");
  const options = opt?.type === "OPT" ? opt : undefined;
  const authorities = packet.authorities ?? [];
  const soa = authorities.find((record) => record.type === "SOA");
  return {
    rcode: (flags & 15) | ((options?.extendedRcode ?? 0) << 4),
    truncated,
    authenticated: (flags & AUTHENTIC_DATA) !== 0,
    answers: (packet.answers ?? []).flatMap(wireRecord),
    ...(soa?.type === "SOA"
      ? { negativeTtl: Math.min(ttlOf(soa.ttl), ttlOf(soa.data.minimum)) }
      : {}),
    referral: !soa && authorities.some((record) => record.type === "NS"),
    ...extendedError(options?.options ?? []),
  };
}

function decodePacket(checked: Buffer): ReturnType<typeof decode> {
  try {
    return decode(checked);
  } catch (error) {
    throw new FrameError(error instanceof Error ? error.message : String(error));
  }
}

/** RFC 2181, section 8: a TTL with its top bit set counts as zero. */
const ttlOf = (ttl: number | undefined): number => ttl === undefined || ttl > 0x7fffffff ? 0 : ttl;

function wireRecord(record: PacketAnswer): WireRecord[] {
  if (record.type === "OPT") return [];
  const common = { name: record.name.toLowerCase(), ttl: ttlOf(record.ttl) };
  switch (record.type) {
    case "A":
    case "AAAA":
    case "CNAME":
    case "PTR":
      return [{ ...common, type: record.type, data: record.data.toLowerCase() }];
    case "MX": {
      const { preference = 0, exchange } = record.data;
      return [{ ...common, type: "MX", data: { preference, exchange: exchange.toLowerCase() } }];
    }
    case "TXT": {
      const strings = Array.isArray(record.data) ? record.data : [record.data];
      const data = strings.map((octets) => new Uint8Array(Buffer.from(octets)));
      return [{ ...common, type: "TXT", data }];
    }
    case "TLSA": {
      const { usage, selector, matchingType, certificate } = record.data;
      const data = { usage, selector, matching: matchingType, data: new Uint8Array(certificate) };
      return [{ ...common, type: "TLSA", data }];
    }
    default:
      return [];
  }
}

const EXTENDED_ERROR = 15;
const MAX_EXTRA_TEXT = 200;

/** Info-codes of RFC 8914, section 4. */
const EXTENDED = [
  "Other Error",
  "Unsupported DNSKEY Algorithm",
  "Unsupported DS Digest Type",
  "Stale Answer",
  "Forged Answer",
  "DNSSEC Indeterminate",
  "DNSSEC Bogus",
  "Signature Expired",
  "Signature Not Yet Valid",
  "DNSKEY Missing",
  "RRSIGs Missing",
  "No Zone Key Bit Set",
  "NSEC Missing",
  "Cached Error",
  "Not Ready",
  "Blocked",
  "Censored",
  "Filtered",
  "Prohibited",
  "Stale NXDOMAIN Answer",
  "Not Authoritative",
  "Not Supported",
  "No Reachable Authority",
  "Network Error",
  "Invalid Data",
] as const;

/** The first extended error among the EDNS options, its text made safe to log. */
function extendedError(
  options: readonly { readonly code: number; readonly data?: Buffer | undefined }[],
): Pick<Response, "extended"> {
  const data = options.find((option) => option.code === EXTENDED_ERROR)?.data;
  if (!data || data.length < 2) return {};
  const code = data.readUInt16BE(0);
  const extra = data.toString("utf8", 2).slice(0, MAX_EXTRA_TEXT)
    .replaceAll(/[\p{C}\p{Z}]+/gu, " ").trim();
  const name = EXTENDED[code] ?? `extended error ${code}`;
  return { extended: { code, text: extra ? `${name}: ${extra}` : name } };
}
