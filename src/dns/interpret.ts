/**
 * What a response means as the answer to a question: CNAMEs within it are followed (RFC 1034,
 * section 3.6.2), records that do not belong to the chain are ignored, and a negative answer gets
 * its TTL from the SOA (RFC 2308, section 5).
 */
import { type Answer, DnsError, type RecordType } from "../ports.ts";
import type { Question, Response, WireRecord } from "./wire.ts";

/** CNAMEs that an answer may go through. */
export const MAX_CNAMES = 16;

/** Seconds: a positive answer is kept no longer than a day, a negative one no longer than an hour. */
export const MAX_TTL = 86_400;
export const MAX_NEGATIVE_TTL = 3_600;

/** Records that are kept of an answer; a hostile one has thousands. */
const MAX_RECORDS = 512;

const NOERROR = 0;
const SERVFAIL = 2;
const NXDOMAIN = 3;
const REFUSED = 5;
const RCODES: Readonly<Record<number, string>> = {
  1: "FORMERR",
  2: "SERVFAIL",
  4: "NOTIMP",
  5: "REFUSED",
  9: "NOTAUTH",
  16: "BADVERS",
};

/**
 * @param trusted whether the server's AD bit counts
 * @throws DnsError when the response is no answer to rely on
 */
export function interpret(
  question: Question,
  response: Response,
  trusted: boolean,
): Answer<RecordType> {
  const { rcode, extended } = response;
  if (rcode !== NOERROR && rcode !== NXDOMAIN) {
    const kind = rcode === REFUSED ? "refused" : rcode === SERVFAIL ? "servfail" : "malformed";
    const why = extended ? ` (${extended.text})` : "";
    throw new DnsError(kind, `${RCODES[rcode] ?? `RCODE ${rcode}`}${why}`, extended);
  }
  const { chain, ttl, records } = follow(question, response.answers);
  const common = { cnames: chain, authentic: trusted && response.authenticated };
  if (records.length > 0) {
    if (rcode === NXDOMAIN) {
      throw new DnsError("malformed", "records in an answer that says the name does not exist");
    }
    const data = records.map((record) => record.data);
    return { status: "records", records: data, ttl: Math.min(ttl, MAX_TTL), ...common };
  }
  if (rcode === NOERROR && response.referral && chain.length === 0) {
    throw new DnsError("refused", "a referral: the server does no recursion for us");
  }
  const kept = Math.min(ttl, response.negativeTtl ?? 0, MAX_NEGATIVE_TTL);
  return { status: rcode === NXDOMAIN ? "nxdomain" : "nodata", records: [], ttl: kept, ...common };
}

function follow(
  question: Question,
  answers: readonly WireRecord[],
): { chain: string[]; ttl: number; records: WireRecord[] } {
  const byName = Map.groupBy(answers, (record) => record.name);
  const chain: string[] = [];
  let name = question.name;
  let ttl = Infinity;
  for (;;) {
    const here = byName.get(name) ?? [];
    const records = here.filter((record) => record.type === question.type).slice(0, MAX_RECORDS);
    if (records.length > 0) {
      return { chain, records, ttl: records.reduce((min, r) => Math.min(min, r.ttl), ttl) };
    }
    const cname = here.find((record) => record.type === "CNAME");
    if (cname?.type !== "CNAME") return { chain, ttl, records: [] };
    name = cname.data;
    ttl = Math.min(ttl, cname.ttl);
    if (name === question.name || chain.includes(name)) {
      throw new DnsError("malformed", `its CNAMEs loop at ${name}`);
    }
    chain.push(name);
    if (chain.length > MAX_CNAMES) {
      throw new DnsError("malformed", `more than ${MAX_CNAMES} CNAMEs`);
    }
  }
}
