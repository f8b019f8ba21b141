/**
 * The TXT record at `_mta-sts.DOMAIN`, which says that the domain has an MTA-STS policy and by
 * which id it is known (RFC 8461, section 3.1).
 */
import { utf8 } from "./text_record.ts";

export type StsRecord =
  | { readonly ok: true; readonly id: string }
  | { readonly ok: false; readonly why: string };

const VERSION = /^v=STSv1[ \t]*;/;
const FIELD = /^([A-Za-z0-9][A-Za-z0-9_.-]{0,31})=([!-:<>-~]+)$/;
const ID = /^[A-Za-z0-9]{1,32}$/;

/** @param records each as the strings that it came in, which are joined without blanks */
export function parseStsRecord(records: readonly (readonly Uint8Array[])[]): StsRecord {
  const texts = records.map(utf8).filter((text) => text !== undefined && VERSION.test(text));
  const [text] = texts;
  if (text === undefined) return no("there is no MTA-STS record");
  if (texts.length > 1) return no(`there are ${texts.length} MTA-STS records instead of one`);
  const [, ...fields] = text.split(";").map((field) => field.replace(/^[ \t]+|[ \t]+$/g, ""));
  if (fields.at(-1) === "") fields.pop();
  const ids: string[] = [];
  for (const field of fields) {
    const [, name, value] = FIELD.exec(field) ?? [];
    if (name === undefined || value === undefined) {
      return no("the MTA-STS record has a field that is not name=value");
    }
    if (name === "id") ids.push(value);
  }
  const [id] = ids;
  if (id === undefined || ids.length > 1) {
    return no(`the MTA-STS record has ${ids.length === 0 ? "no" : "more than one"} id`);
  }
  if (!ID.test(id)) return no("the id of the MTA-STS record is not 1 to 32 letters and digits");
  return { ok: true, id };
}

const no = (why: string): StsRecord => ({ ok: false, why });
