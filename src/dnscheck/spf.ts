/**
 * SPF (RFC 7208): evaluated for every address that mail leaves from, as a receiver would, for the
 * domain of the sender and for the names in EHLO, which count for mail from the null reverse-path
 * (section 2.4).
 */
import { isIPv4 } from "node:net";
import { spf } from "mailauth/lib/spf/index.js";
import { DnsError, type RecordType } from "../ports.ts";
import { type CheckPorts, type Dnssec, type Finding, type Level } from "./finding.ts";
import type { SendingAddress, Subject } from "./subject.ts";
import { orNoAnswer, textsAt } from "./texts.ts";
import { txtLine } from "./zone.ts";

/** Milliseconds for one evaluation (RFC 7208, section 4.6.4: at least 20 seconds). */
const TIME_LIMIT = 20_000;

const isSpf = (text: string): boolean => /^v=spf1( |$)/i.test(text);

export function checkSpf(ports: CheckPorts, subject: Subject): Promise<readonly Finding[]> {
  return orNoAnswer("spf", subject.domain, async () => {
    const { domain, addresses } = subject;
    const findings: Finding[] = [
      ...await checkName(ports, domain, subject, addresses, "error"),
      ...subject.unknowable.map((found) => finding("warning", domain, found)),
      ...subject.notes.map((found) => finding("ok", domain, found)),
    ];
    const names = new Set(addresses.map(({ hostname }) => hostname));
    names.delete(domain);
    for (const name of names) {
      const own = addresses.filter(({ hostname }) => hostname === name);
      findings.push(...await checkName(ports, name, subject, own, "warning"));
    }
    return findings;
  });
}

/**
 * One identity against the addresses that it is used from.
 * @param severity of an address that does not pass
 */
async function checkName(
  ports: CheckPorts,
  name: string,
  { hostname }: Subject,
  addresses: readonly SendingAddress[],
  severity: Level,
): Promise<Finding[]> {
  const { texts, dnssec } = await textsAt(ports, name);
  const records = texts.filter(isSpf);
  const [record] = records;
  if (record === undefined) {
    const found = severity === "error"
      ? "there is no SPF record"
      : "there is no SPF record for this name in EHLO; reports of failure, whose sender is empty, " +
        "are judged by it";
    return [finding(severity, name, found, dnssec, [txtLine(name, spfFor(addresses, hostname))])];
  }
  if (records.length > 1) {
    return [finding(
      "error",
      name,
      `there are ${records.length} SPF records, which receivers take for an error; keep one`,
      dnssec,
      [txtLine(name, withAddresses(record, addresses))],
    )];
  }
  const findings: Finding[] = [];
  const missing: SendingAddress[] = [];
  for (const sending of addresses) {
    const { result, why } = await evaluate(ports, name, sending);
    const { address, transports } = sending;
    const from = `${address} (${transports.join(", ")})`;
    if (result === "pass") {
      findings.push(finding("ok", name, `${from}: pass`, dnssec));
    } else if (result === "permerror" || result === "temperror") {
      // The record itself is wrong, or something that it includes; each address would say the same.
      findings.push(finding("error", name, `"${record}": ${result}: ${why}`, dnssec));
      return findings;
    } else {
      missing.push(sending);
      findings.push(
        finding(severity, name, `${from}: ${result} by "${record}"`, dnssec),
      );
    }
  }
  const fixed = missing.length > 0 ? [txtLine(name, withAddresses(record, missing))] : [];
  if (fixed.length > 0) {
    const at = findings.findLastIndex(({ level }) => level === severity);
    findings[at] = { ...findings[at]!, publish: fixed };
  }
  if (addresses.length === 0) {
    findings.push(finding("ok", name, `"${record}"; no address to hold against it`, dnssec));
  }
  const open = openTo(record);
  if (open) findings.push(finding("warning", name, open, dnssec));
  return findings;
}

/** What a record lets through that it should not. */
function openTo(record: string): string | undefined {
  const terms = record.toLowerCase().split(/ +/);
  if (terms.includes("all") || terms.includes("+all")) {
    return `"${record}" lets everybody send in this name; end it with -all or ~all`;
  }
  if (terms.includes("?all")) {
    return `"${record}" says nothing of other addresses; end it with -all or ~all`;
  }
  const ends = terms.some((term) => /^[-~]all$/.test(term) || term.startsWith("redirect="));
  return ends ? undefined : `"${record}" says nothing of other addresses; end it with -all or ~all`;
}

interface Evaluated {
  readonly result: string;
  readonly why: string;
}

async function evaluate(
  ports: CheckPorts,
  name: string,
  { address, hostname }: SendingAddress,
): Promise<Evaluated> {
  const { status } = await spf({
    sender: `postmaster@${name}`,
    ip: address,
    helo: hostname,
    mta: hostname,
    strict: true,
    maxElapsedTime: TIME_LIMIT,
    // It takes what node:dns gives, and is typed for TXT alone.
    resolver: (asked, type) => answer(ports, asked, type) as Promise<string[]>,
  });
  const { result, comment = "" } = status as { result: string; comment?: string };
  return { result, why: comment.replace(/^.*?lookup of \S+: /, "") };
}

/** A question as node:dns would answer it, which is how the evaluation asks. */
async function answer(
  { resolver, signal }: CheckPorts,
  name: string,
  type: string,
): Promise<unknown[]> {
  try {
    const { status, records } = await resolver.query(name, type as RecordType, signal);
    if (status === "nxdomain") throw failure("ENOTFOUND", `${name} does not exist`);
    if (status === "nodata") throw failure("ENODATA", `${name} has no ${type} records`);
    switch (type) {
      case "TXT":
        return (records as Uint8Array[][]).map((strings) =>
          strings.map((octets) => new TextDecoder().decode(octets))
        );
      case "MX":
        return (records as { preference: number; exchange: string }[]).map((
          { preference, exchange },
        ) => ({ priority: preference, exchange }));
      default:
        return [...records];
    }
  } catch (error) {
    if (!(error instanceof DnsError)) throw error;
    const code = error.kind === "timeout"
      ? "ETIMEOUT"
      : error.kind === "refused"
      ? "EREFUSED"
      : error.kind === "badname"
      ? "EBADNAME"
      : "ESERVFAIL";
    throw failure(code, error.message);
  }
}

const failure = (code: string, message: string): Error =>
  Object.assign(new Error(message), { code });

const mechanism = ({ address }: SendingAddress): string =>
  `${isIPv4(address) ? "ip4" : "ip6"}:${address}`;

const mechanisms = (addresses: readonly SendingAddress[]): string[] => [
  ...new Set(addresses.map(mechanism)),
];

/**
 * The record for a name whose mail leaves from these addresses; from those of our host where none
 * are known. `~all`, since `-all` makes some receivers refuse what was forwarded before they look at
 * its DKIM signature (RFC 7489, section 10.1).
 */
export function spfFor(addresses: readonly SendingAddress[], hostname: string): string {
  const sources = addresses.length > 0 ? mechanisms(addresses) : [`a:${hostname}`];
  return ["v=spf1", ...sources, "~all"].join(" ");
}

/** A record with addresses put in where they count: before the first term that ends it. */
function withAddresses(record: string, addresses: readonly SendingAddress[]): string {
  const terms = record.split(/ +/);
  const more = mechanisms(addresses).filter((term) => !terms.includes(term));
  const end = terms.findIndex((term) => /^[-~?+]?all$/i.test(term) || /^redirect=/i.test(term));
  const at = end < 0 ? terms.length : end;
  // In front of the rest: an exception ("-ip4:…") must not come first.
  return [terms[0], ...more, ...terms.slice(1, at), ...terms.slice(at)].join(" ");
}

function finding(
  level: Level,
  name: string,
  found: string,
  dnssec?: Dnssec,
  publish: readonly string[] = [],
): Finding {
  return { check: "spf", level, name, found, publish, ...(dnssec ? { dnssec } : {}) };
}
