/**
 * MX: where replies and reports of failure for the domain go (RFC 5321, section 5.1). A domain
 * that cannot be answered is refused by many receivers; one with a null MX (RFC 7505) by most.
 */
import { undialable } from "../dns/addresses.ts";
import { type CheckPorts, type Dnssec, dnssecOf, type Finding, type Level } from "./finding.ts";
import type { Subject } from "./subject.ts";
import { orNoAnswer } from "./texts.ts";
import { mxLine } from "./zone.ts";

export function checkMx(ports: CheckPorts, subject: Subject): Promise<readonly Finding[]> {
  const { domain, hostname } = subject;
  return orNoAnswer("mx", domain, async () => {
    const { resolver, signal } = ports;
    const answer = await resolver.query(domain, "MX", signal);
    const finding = (level: Level, found: string, dnssec: Dnssec = dnssecOf(answer)): Finding => ({
      check: "mx",
      level,
      name: domain,
      found,
      dnssec,
      publish: level === "ok" ? [] : [mxLine(domain, 10, hostname)],
    });
    if (answer.status === "nxdomain") return [finding("error", "the domain does not exist")];
    if (answer.records.length === 0) {
      return [
        await hasAddress(ports, domain)
          ? finding("warning", "there is no MX record; mail for the domain goes to its own address")
          : finding("error", "there is no MX record and no address: nobody can answer"),
      ];
    }
    if (answer.records.some(({ exchange }) => exchange === "" || exchange === ".")) {
      return [finding(
        "error",
        "the null MX says that the domain takes no mail: most receivers then take none from it",
      )];
    }
    const sorted = answer.records.toSorted((a, b) => a.preference - b.preference);
    const hosts = await Promise.all(
      sorted.map(({ exchange, preference }) => checkHost(ports, exchange, preference, finding)),
    );
    return hosts;
  });
}

async function checkHost(
  { resolver, signal }: CheckPorts,
  host: string,
  preference: number,
  finding: (level: Level, found: string, dnssec?: Dnssec) => Finding,
): Promise<Finding> {
  const answers = await Promise.all([
    resolver.query(host, "A", signal),
    resolver.query(host, "AAAA", signal),
  ]);
  const dnssec = dnssecOf(...answers);
  const addresses = answers.flatMap(({ records }) => [...records]);
  const what = `${preference} ${host}`;
  if (addresses.length === 0) return finding("error", `${what} has no address`, dnssec);
  if (answers.some(({ cnames }) => cnames.length > 0)) {
    return finding("warning", `${what} is an alias, which an MX must not name (RFC 2181)`, dnssec);
  }
  const odd = addresses.flatMap((address) => undialable(address) ? [address] : []);
  if (odd.length === addresses.length) {
    return finding("error", `${what} has no address to dial: ${odd.join(", ")}`, dnssec);
  }
  return finding("ok", `${what} has ${addresses.join(", ")}`, dnssec);
}

async function hasAddress({ resolver, signal }: CheckPorts, name: string): Promise<boolean> {
  const answers = await Promise.all([
    resolver.query(name, "A", signal),
    resolver.query(name, "AAAA", signal),
  ]);
  return answers.some(({ records }) => records.length > 0);
}
