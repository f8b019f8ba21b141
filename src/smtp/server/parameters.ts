/**
 * Parameters of MAIL and RCPT: SIZE (RFC 1870), BODY (RFC 6152), SMTPUTF8 (RFC 6531), RET, ENVID,
 * NOTIFY and ORCPT (RFC 3461), REQUIRETLS (RFC 8689).
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
}

const MAX_ENVID = 100; // RFC 3461, section 4.4, before decoding
const MAX_ORCPT = 500; // RFC 3461, section 4.2

const NOTIFY = ["SUCCESS", "FAILURE", "DELAY"] as const;

/** @throws Refusal */
export function readMailParameters(text: string): MailParameters {
  let size: number | undefined;
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
      default:
        throw unknown("MAIL");
    }
  }
  return { ...(size === undefined ? {} : { size }), smtputf8, requireTLS, dsn };
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
