/**
 * Parameters of MAIL and RCPT: SIZE (RFC 1870), BODY (RFC 6152), SMTPUTF8 (RFC 6531), RET, ENVID,
 * NOTIFY and ORCPT (RFC 3461), REQUIRETLS (RFC 8689), HOLDFOR and HOLDUNTIL (RFC 4865),
 * MT-PRIORITY (RFC 6710), AUTH (RFC 4954, section 5).
 */
import type { EventData } from "../../../events/catalogue.ts";
import { Refusal } from "../../submission/refusal.ts";
import { isAscii } from "../address.ts";
import { BadXtext, decodeXtext } from "../xtext.ts";

type Dsn = EventData<"Enqueued">["dsn"];

export interface MailParameters {
  readonly size?: number;
  readonly smtputf8: boolean;
  readonly requireTLS: boolean;
  readonly dsn: Pick<Dsn, "ret" | "envid">;
  /** Epoch milliseconds until which the message is held. */
  readonly due?: number;
  /** -9 to 9, above 0 before others. */
  readonly priority?: number;
}

/** What a future release is measured against. */
export interface HoldTimes {
  /** Epoch milliseconds. */
  readonly now: number;
  /** Milliseconds. */
  readonly longest: number;
}

const MAX_ENVID = 100; // RFC 3461, section 4.4, before decoding
const MAX_ORCPT = 500; // RFC 3461, section 4.2

const NOTIFY = ["SUCCESS", "FAILURE", "DELAY"] as const;

/** @throws Refusal */
export function readMailParameters(text: string, hold: HoldTimes): MailParameters {
  let size: number | undefined;
  let due: number | undefined;
  let priority: number | undefined;
  let smtputf8 = false;
  let requireTLS = false;
  const dsn: { ret?: "FULL" | "HDRS"; envid?: string } = {};
  for (const [keyword, value] of split(text)) {
    switch (keyword) {
      case "SIZE":
        if (!/^\d{1,20}$/.test(value ?? "")) throw malformed("SIZE takes a number of octets");
        size = Number(value);
        break;
      case "BODY":
        if (!/^(?:7BIT|8BITMIME)$/i.test(value ?? "")) {
          throw malformed("BODY takes 7BIT or 8BITMIME");
        }
        break;
      case "SMTPUTF8":
        if (value !== undefined) throw malformed("SMTPUTF8 takes no value");
        smtputf8 = true;
        break;
      case "REQUIRETLS":
        if (value !== undefined) throw malformed("REQUIRETLS takes no value");
        requireTLS = true;
        break;
      case "RET": {
        const ret = value?.toUpperCase();
        if (ret !== "FULL" && ret !== "HDRS") throw malformed("RET takes FULL or HDRS");
        dsn.ret = ret;
        break;
      }
      case "ENVID":
        if (!value) throw malformed("ENVID takes an identifier");
        if (value.length > MAX_ENVID) {
          throw malformed(`ENVID is longer than ${MAX_ENVID} characters`);
        }
        dsn.envid = xtext("ENVID", value);
        break;
      case "HOLDFOR":
      case "HOLDUNTIL":
        if (due !== undefined) throw malformed("HOLDFOR and HOLDUNTIL exclude each other");
        due = keyword === "HOLDFOR" ? holdFor(value ?? "", hold) : holdUntil(value ?? "", hold);
        break;
      case "MT-PRIORITY":
        if (!/^(?:-?[1-9]|0)$/.test(value ?? "")) {
          throw malformed("MT-PRIORITY takes a number from -9 to 9");
        }
        priority = Number(value);
        break;
      case "AUTH":
        // Who has submitted a message before it came to the client. Read, and not passed on: no
        // client is trusted to speak for others, which makes it AUTH=<> (RFC 4954, section 5).
        if (!value) throw malformed("AUTH takes <> or a mailbox");
        if (value !== "<>") xtext("AUTH", value);
        break;
      default:
        throw unknown("MAIL");
    }
  }
  return {
    ...(size === undefined ? {} : { size }),
    smtputf8,
    requireTLS,
    dsn,
    ...(due === undefined ? {} : { due }),
    ...(priority === undefined ? {} : { priority }),
  };
}

function holdFor(value: string, { now, longest }: HoldTimes): number {
  if (!/^[1-9]\d{0,8}$/.test(value)) throw malformed("HOLDFOR takes a number of seconds");
  return held(now + Number(value) * 1_000, now + longest);
}

/** A time of RFC 3339 in UTC. */
function holdUntil(value: string, { now, longest }: HoldTimes): number {
  const until = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,9})?Z$/i.test(value)
    ? Date.parse(value.toUpperCase())
    : NaN;
  if (Number.isNaN(until)) throw malformed("HOLDUNTIL takes a time like 2030-01-31T09:30:00Z");
  if (until < now) throw malformed("the time of HOLDUNTIL has passed");
  return held(until, now + longest);
}

function held(until: number, latest: number): number {
  if (until <= latest) return until;
  throw malformed("the message would be held longer than FUTURERELEASE says");
}

/** @throws Refusal */
export function readRcptParameters(
  text: string,
  smtputf8: boolean,
): Pick<Dsn, "notify" | "orcpt"> {
  const dsn: Pick<Dsn, "notify" | "orcpt"> = {};
  for (const [keyword, value] of split(text)) {
    switch (keyword) {
      case "NOTIFY":
        dsn.notify = readNotify(value ?? "");
        break;
      case "ORCPT":
        dsn.orcpt = readOrcpt(value ?? "", smtputf8);
        break;
      default:
        throw unknown("RCPT");
    }
  }
  return dsn;
}

/** RFC 3461, section 4.1: NEVER alone, or any of the others. */
function readNotify(value: string): NonNullable<Dsn["notify"]> {
  const words = value.toUpperCase().split(",");
  if (words.length === 1 && words[0] === "NEVER") return ["NEVER"];
  const asked = NOTIFY.filter((word) => words.includes(word));
  if (asked.length !== words.length) {
    throw malformed("NOTIFY takes NEVER, or a list of SUCCESS, FAILURE and DELAY");
  }
  return asked;
}

/**
 * RFC 3461, section 4.2. An address of type utf-8 may come in UTF-8 with SMTPUTF8 (RFC 6533,
 * section 3); it is kept in the form that is ASCII, which every later hop can be told.
 */
function readOrcpt(value: string, smtputf8: boolean): string {
  if (value.length > MAX_ORCPT) throw malformed(`ORCPT is longer than ${MAX_ORCPT} characters`);
  const parts = /^([A-Za-z0-9!#$%&'*+/?^_`{|}~-]+);(.+)$/u.exec(value);
  if (!parts) throw malformed("ORCPT takes an address type, a semicolon and an address");
  const type = parts[1]!;
  let address = parts[2]!;
  if (!isAscii(address)) {
    if (!smtputf8 || type.toLowerCase() !== "utf-8") {
      throw malformed("ORCPT is not ASCII: that takes SMTPUTF8 and the address type utf-8");
    }
    address = address.replace(
      /[^ -~]/gu,
      (c) => `\\x{${c.codePointAt(0)!.toString(16).toUpperCase().padStart(2, "0")}}`,
    );
  }
  return `${type};${xtext("ORCPT", address)}`;
}

function xtext(keyword: string, value: string): string {
  try {
    return decodeXtext(value);
  } catch (error) {
    if (error instanceof BadXtext) throw malformed(`${keyword}: ${error.message}`);
    throw error;
  }
}

/** Keywords, in upper case, and their values (RFC 5321, section 4.1.2: esmtp-param). */
function split(text: string): Map<string, string | undefined> {
  const parameters = new Map<string, string | undefined>();
  if (text === "") return parameters;
  for (const word of text.split(/ +/)) {
    const parts = /^([A-Za-z0-9][A-Za-z0-9-]*)(?:=([!-<>-~\u{80}-\u{10FFFF}]+))?$/u.exec(word);
    if (!parts) throw malformed("a parameter is malformed");
    const keyword = parts[1]!.toUpperCase();
    if (parameters.has(keyword)) throw malformed(`${keyword.slice(0, 40)} is given twice`);
    parameters.set(keyword, parts[2]);
  }
  return parameters;
}

function malformed(text: string): Refusal {
  return new Refusal(501, "5.5.4", text);
}

function unknown(command: string): Refusal {
  return new Refusal(555, "5.5.4", `a parameter of ${command} is not known here`);
}
