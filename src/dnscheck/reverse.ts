/**
 * Reverse DNS of every address that mail leaves from: a name, which leads back to the address, and
 * is the one in EHLO. Large receivers refuse mail from addresses without.
 */
import { hostName } from "../dns/names.ts";
import { type CheckPorts, type Dnssec, dnssecOf, type Finding, type Level } from "./finding.ts";
import type { SendingAddress, Subject } from "./subject.ts";
import { orNoAnswer } from "./texts.ts";
import { addressLine, canonicalAddress, ptrLine, reverseName } from "./zone.ts";

/** Names of one address that are followed; an address has one. */
const MOST_NAMES = 10;

export async function checkReverse(
  ports: CheckPorts,
  { addresses }: Subject,
): Promise<readonly Finding[]> {
  const found = await Promise.all(addresses.map((sending) => checkAddress(ports, sending)));
  return found.flat();
}

function checkAddress(
  ports: CheckPorts,
  { address, hostname }: SendingAddress,
): Promise<readonly Finding[]> {
  const reverse = reverseName(address);
  return orNoAnswer("reverse", reverse, async () => {
    const answer = await ports.resolver.query(reverse, "PTR", ports.signal);
    const ptr = [ptrLine(address, hostname)];
    const finding = (
      level: Level,
      words: string,
      publish: readonly string[],
      dnssec: Dnssec = dnssecOf(answer),
    ): Finding => ({ check: "reverse", level, name: reverse, found: words, dnssec, publish });
    const names = answer.records.slice(0, MOST_NAMES).flatMap((name) => hostName(name) ?? []);
    const forward = await leadsTo(ports, hostname, address);
    const findings: Finding[] = [];
    if (!forward.leads) {
      findings.push(finding(
        "error",
        `${hostname}, our name in EHLO, does not lead to ${address}`,
        [addressLine(hostname, address)],
        forward.dnssec,
      ));
    }
    if (names.length === 0) {
      const found = `${address} has no name; whoever gave you the address sets it`;
      return [...findings, finding("error", found, ptr)];
    }
    if (names.includes(hostname)) {
      if (forward.leads) findings.push(finding("ok", `${address} is ${hostname}, and back`, []));
      if (names.length > 1) {
        findings.push(finding("warning", `${address} has ${names.length} names; keep one`, ptr));
      }
      return findings;
    }
    const others = await Promise.all(names.map((name) => leadsTo(ports, name, address)));
    const shown = names.join(", ");
    findings.push(
      others.some(({ leads }) => leads)
        ? finding("warning", `${address} is ${shown}, but says ${hostname} in EHLO`, ptr)
        : finding("error", `${address} is ${shown}, which does not lead back to it`, ptr),
    );
    return findings;
  });
}

async function leadsTo(
  { resolver, signal }: CheckPorts,
  name: string,
  address: string,
): Promise<{ readonly leads: boolean; readonly dnssec: Dnssec }> {
  const answer = await resolver.query(name, address.includes(":") ? "AAAA" : "A", signal);
  const leads = answer.records.some((found) => canonicalAddress(found) === address);
  return { leads, dnssec: dnssecOf(answer) };
}
