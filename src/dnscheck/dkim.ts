/** DKIM: the published keys against those that sign (RFC 6376, section 3.6.1; RFC 8301; RFC 8463). */
import { Buffer } from "node:buffer";
import { dkimPublicKey, dkimRecord, dkimRecordName, GOOD_RSA_BITS } from "../dkim/keys.ts";
import type { CheckPorts, Finding, Level } from "./finding.ts";
import type { SigningKey, Subject } from "./subject.ts";
import { parseTags, tagOf } from "./tags.ts";
import { orNoAnswer, textsAt } from "./texts.ts";
import { txtLine } from "./zone.ts";

export async function checkDkim(ports: CheckPorts, subject: Subject): Promise<readonly Finding[]> {
  const { domain, keys } = subject;
  if (keys.length === 0) {
    return [{
      check: "dkim",
      level: "warning",
      name: domain,
      found: `the config names no key for ${domain}: mail leaves unsigned; put ` +
        `dkim = [{ selector = "…", key_file = "…" }] under [domains."${domain}"]`,
      publish: [],
    }];
  }
  const found = await Promise.all(keys.map((key) => checkKey(ports, domain, key)));
  return found.flat();
}

function checkKey(
  ports: CheckPorts,
  domain: string,
  { selector, key }: SigningKey,
): Promise<readonly Finding[]> {
  const name = dkimRecordName(selector, domain);
  return orNoAnswer("dkim", name, async () => {
    const { texts, dnssec } = await textsAt(ports, name);
    const wanted = txtLine(name, dkimRecord(key));
    const finding = (level: Level, found: string): Finding => ({
      check: "dkim",
      level,
      name,
      found,
      dnssec,
      publish: level === "ok" ? [] : [wanted],
    });
    const [text, ...more] = texts;
    if (text === undefined) return [finding("error", "there is no record for the key that signs")];
    if (more.length > 0) {
      return [finding("error", `there are ${texts.length} records, which is undefined; keep one`)];
    }
    const fault = faultOf(text, key.algorithm, dkimPublicKey(key));
    if (fault !== undefined) return [finding("error", fault)];
    const findings = [
      finding("ok", `${key.algorithm} key, ${key.bits} bits, is the one that signs`),
    ];
    const tags = parseTags(text);
    const flags = typeof tags === "string" ? "" : tagOf(tags, "t") ?? "";
    if (flags.split(":").map((flag) => flag.trim()).includes("y")) {
      findings.push(finding("warning", "t=y says that it is a test; receivers may ignore it"));
    }
    if (key.algorithm === "rsa" && key.bits < GOOD_RSA_BITS) {
      findings.push({
        ...finding("warning", `the key has ${key.bits} bits; make one of ${GOOD_RSA_BITS}`),
        publish: [],
      });
    }
    return findings;
  });
}

/** Why receivers cannot verify with the record what the key signs. */
function faultOf(text: string, algorithm: string, wanted: string): string | undefined {
  const tags = parseTags(text);
  if (typeof tags === "string") return `the record is not a tag list: ${tags}`;
  const version = tagOf(tags, "v");
  if (version !== undefined && (version !== "DKIM1" || tags[0]?.name !== "v")) {
    return "the record does not begin with v=DKIM1";
  }
  const p = tagOf(tags, "p");
  if (p === undefined) return "the record has no p=";
  const octets = p.replace(/\s+/g, "");
  if (octets === "") return "p= is empty: the key is revoked, and yet it signs";
  const type = tagOf(tags, "k") ?? "rsa";
  if (type !== algorithm) {
    return `it is k=${type.slice(0, 20)}, but the key that signs is ${algorithm}`;
  }
  if (!Buffer.from(octets, "base64").equals(Buffer.from(wanted, "base64"))) {
    return "it publishes another key than the one that signs";
  }
  const list = (tag: string) => tagOf(tags, tag)?.split(":").map((item) => item.trim());
  const hashes = list("h");
  if (hashes && !hashes.includes("sha256")) return "h= excludes sha256, which is what we sign with";
  const services = list("s");
  if (services && !services.includes("*") && !services.includes("email")) {
    return "s= excludes email";
  }
  return undefined;
}
