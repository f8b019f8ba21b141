/**
 * TLSA: records for the keys of our listeners (RFC 7671, section 5.1: `3 1 1`), and for port 25
 * where the MX of the domain is this host. Without DNSSEC nobody believes them.
 */
import { Buffer } from "node:buffer";
import type { RecordData } from "../ports.ts";
import { tlsaOf } from "../tls/host_key.ts";
import { type CheckPorts, dnssecOf, type Finding, type Level } from "./finding.ts";
import type { Subject } from "./subject.ts";
import { orNoAnswer } from "./texts.ts";
import { tlsaLine } from "./zone.ts";

const SMTP = 25;

export async function checkTlsa(ports: CheckPorts, subject: Subject): Promise<readonly Finding[]> {
  const { domain, hostname, listeners } = subject;
  if (listeners.length === 0) {
    return [{
      check: "tlsa",
      level: "ok",
      name: hostname,
      found: "no listener of the config has a certificate, so there is nothing to publish",
      publish: [],
    }];
  }
  const places = new Map<number, { readonly what: string; readonly keys: Uint8Array[] }>();
  for (const { name, port, spki } of listeners) {
    const place = places.get(port) ?? { what: `listener ${name}`, keys: [] };
    place.keys.push(spki);
    places.set(port, place);
  }
  const findings = await Promise.all(
    [...places].map(([port, { what, keys }]) => checkPort(ports, hostname, port, what, keys)),
  );
  if (!places.has(SMTP) && await isMx(ports, domain, hostname)) {
    findings.push(await checkMxPort(ports, hostname, listeners.map(({ spki }) => spki)));
  }
  return findings.flat();
}

async function isMx({ resolver, signal }: CheckPorts, domain: string, hostname: string) {
  const answer = await resolver.query(domain, "MX", signal).catch(() => undefined);
  return answer?.records.some(({ exchange }) => exchange === hostname) ?? false;
}

const found311 = (record: RecordData["TLSA"], spki: Uint8Array): boolean =>
  record.usage === 3 && record.selector === 1 && record.matching === 1 &&
  Buffer.from(record.data).equals(spki);

function checkPort(
  { resolver, signal }: CheckPorts,
  hostname: string,
  port: number,
  what: string,
  keys: readonly Uint8Array[],
): Promise<readonly Finding[]> {
  const name = `_${port}._tcp.${hostname}`;
  return orNoAnswer("tlsa", name, async () => {
    const answer = await resolver.query(name, "TLSA", signal);
    const { records } = answer;
    const dnssec = dnssecOf(answer);
    const wanted = keys.map((spki) => tlsaLine(name, tlsaOf(spki)));
    const finding = (level: Level, found: string, publish = wanted): Finding => ({
      check: "tlsa",
      level,
      name,
      found,
      dnssec,
      publish: level === "ok" ? [] : publish,
    });
    if (records.length === 0) return [finding("warning", `there is none for the ${what}`)];
    const missing = keys.filter((spki) => !records.some((record) => found311(record, spki)));
    if (missing.length > 0) {
      const others = `none of the ${records.length} is the key of the ${what}`;
      return [finding(
        dnssec === "secure" ? "error" : "warning",
        `${others}: clients that check will not connect`,
        missing.map((spki) => tlsaLine(name, tlsaOf(spki))),
      )];
    }
    const spare = records.length - keys.length;
    const more = spare > 0 ? `, and ${spare} more for another key` : "";
    if (dnssec === "secure") return [finding("ok", `3 1 1 is the key of the ${what}${more}`)];
    return [finding(
      "warning",
      `3 1 1 is the key of the ${what}${more}, but the answer is not authentic by DNSSEC, so ` +
        `nobody believes it: sign the zone`,
      [],
    )];
  });
}

/** Port 25 may be served by another program with keys of its own, so nothing here is an error. */
function checkMxPort(
  ports: CheckPorts,
  hostname: string,
  keys: readonly Uint8Array[],
): Promise<readonly Finding[]> {
  const name = `_${SMTP}._tcp.${hostname}`;
  return orNoAnswer("tlsa", name, async () => {
    const answer = await ports.resolver.query(name, "TLSA", ports.signal);
    const { records } = answer;
    const known = records.some((record) => keys.some((spki) => found311(record, spki)));
    const level: Level = records.length > 0 && known && answer.authentic ? "ok" : "warning";
    const words = records.length === 0
      ? "there is none for the MX; where its server uses the keys of our listeners, publish this"
      : !known
      ? "none is a key of our listeners; right only if the MX server has a key of its own"
      : answer.authentic
      ? "3 1 1 is a key of our listeners"
      : "3 1 1 is a key of our listeners, but the answer is not authentic by DNSSEC";
    return [{
      check: "tlsa",
      level,
      name,
      found: words,
      dnssec: dnssecOf(answer),
      publish: records.length === 0
        ? [...new Set(keys.map((spki) => tlsaLine(name, tlsaOf(spki))))]
        : [],
    }];
  });
}
