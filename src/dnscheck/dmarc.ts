/**
 * DMARC (RFC 7489, section 6.3): whether there is a policy, here or at a domain above, whether it
 * can be read, and whether it asks for anything.
 */
import { getDomain } from "tldts";
import type { CheckPorts, Dnssec, Finding, Level } from "./finding.ts";
import type { Subject } from "./subject.ts";
import { parseTags, type Tag, tagOf } from "./tags.ts";
import { orNoAnswer, textsAt } from "./texts.ts";
import { mailto, txtLine } from "./zone.ts";

const POLICIES = ["none", "quarantine", "reject"];
/** What is published where there is nothing: reports come, and forgeries go to the junk folder. */
export const dmarcRecord = (reportsTo: string): string =>
  `v=DMARC1; p=quarantine; rua=${mailto(reportsTo)}`;

export function checkDmarc(ports: CheckPorts, { domain }: Subject): Promise<readonly Finding[]> {
  const name = `_dmarc.${domain}`;
  return orNoAnswer("dmarc", name, async () => {
    const suggestion = [txtLine(name, dmarcRecord(`postmaster@${domain}`))];
    const finding = (level: Level, at: string, found: string, dnssec: Dnssec): Finding => ({
      check: "dmarc",
      level,
      name: at,
      found,
      dnssec,
      publish: level === "ok" ? [] : suggestion,
    });
    const asked = await policyFor(ports, domain);
    const { at, records, dnssec } = asked;
    const [record] = records;
    if (record === undefined) {
      return [finding("error", name, "there is no DMARC record, here or above", dnssec)];
    }
    if (records.length > 1) {
      const found = `there are ${records.length} DMARC records, so receivers ignore all of them`;
      return [finding("error", at, found, dnssec)];
    }
    const judged = judge(record, at !== name);
    if ("fault" in judged) return [finding("error", at, `"${record}": ${judged.fault}`, dnssec)];
    const findings = [
      judged.policy === "none"
        ? finding("warning", at, `"${record}": the policy none asks receivers for nothing`, dnssec)
        : finding("ok", at, `"${record}"`, dnssec),
    ];
    const percent = tagOf(judged.tags, "pct");
    if (percent !== undefined && percent !== "100") {
      findings.push(
        finding("warning", at, `pct=${percent}: the policy is for a part only`, dnssec),
      );
    }
    for (const uri of ["rua", "ruf"].flatMap((tag) => reportDomains(tagOf(judged.tags, tag)))) {
      const permit = await permission(ports, at.slice("_dmarc.".length), uri);
      if (permit) findings.push(permit);
    }
    return findings;
  });
}

/** The records of the domain, or else of its organizational domain (RFC 7489, section 6.6.3). */
async function policyFor(ports: CheckPorts, domain: string) {
  const look = async (at: string) => {
    const { texts, dnssec } = await textsAt(ports, at);
    const records = texts.filter((text) => /^v\s*=\s*DMARC1\b/.test(text));
    // Something that means to be a policy and is none: better named than passed over.
    const attempts = records.length > 0 ? records : texts.filter((text) => /dmarc/i.test(text));
    return { at, records: attempts, dnssec };
  };
  const own = await look(`_dmarc.${domain}`);
  const above = organizational(domain);
  if (own.records.length > 0 || above === domain) return own;
  const inherited = await look(`_dmarc.${above}`);
  return inherited.records.length > 0 ? inherited : own;
}

/** The registered domain that a domain belongs to, by the public suffix list. */
const organizational = (domain: string): string =>
  getDomain(domain, { allowPrivateDomains: true }) ?? domain;

function judge(
  record: string,
  fromAbove: boolean,
): { readonly fault: string } | { readonly tags: readonly Tag[]; readonly policy: string } {
  const tags = parseTags(record);
  if (typeof tags === "string") return { fault: tags };
  if (tags[0]?.name !== "v" || tags[0].value !== "DMARC1") {
    return { fault: "it does not begin with v=DMARC1" };
  }
  const p = tagOf(tags, "p");
  if (p === undefined) return { fault: "it has no p=" };
  const oneOf = (tag: string, values: readonly string[]): string | undefined => {
    const value = tagOf(tags, tag);
    return value === undefined || values.includes(value)
      ? undefined
      : `${tag}=${value.slice(0, 30)} is not one of ${values.join(", ")}`;
  };
  const fault = oneOf("p", POLICIES) ?? oneOf("sp", POLICIES) ?? oneOf("adkim", ["r", "s"]) ??
    oneOf("aspf", ["r", "s"]) ?? percentFault(tagOf(tags, "pct")) ?? uriFault(tags, "rua") ??
    uriFault(tags, "ruf");
  if (fault !== undefined) return { fault };
  return { tags, policy: fromAbove ? tagOf(tags, "sp") ?? p : p };
}

const percentFault = (value: string | undefined): string | undefined =>
  value === undefined || (/^\d{1,3}$/.test(value) && Number(value) <= 100)
    ? undefined
    : `pct=${value.slice(0, 30)} is not 0 to 100`;

const MAILTO = /^mailto:[^@\s,!]+@([A-Za-z0-9._-]+)(?:![0-9]+[kmgt]?)?$/i;

const uris = (value: string | undefined): string[] =>
  value === undefined ? [] : value.split(",").map((uri) => uri.trim());

function uriFault(tags: readonly Tag[], tag: string): string | undefined {
  const bad = uris(tagOf(tags, tag)).find((uri) =>
    !/^[a-z][a-z0-9+.-]*:\S+$/i.test(uri) ||
    (/^mailto:/i.test(uri) && !MAILTO.test(uri))
  );
  return bad === undefined
    ? undefined
    : `${tag}= has "${bad.slice(0, 60)}", which is no mailto: URI`;
}

const reportDomains = (value: string | undefined): string[] =>
  uris(value).flatMap((uri) => MAILTO.exec(uri)?.[1]?.toLowerCase() ?? []);

/** RFC 7489, section 7.1: a domain elsewhere has to say that it takes the reports. */
async function permission(
  ports: CheckPorts,
  owner: string,
  target: string,
): Promise<Finding | undefined> {
  if (organizational(target) === organizational(owner)) return;
  const name = `${owner}._report._dmarc.${target}`;
  const { texts, dnssec } = await textsAt(ports, name);
  if (texts.some((text) => /^v\s*=\s*DMARC1\b/.test(text))) return;
  return {
    check: "dmarc",
    level: "warning",
    name,
    found: `${target} does not say that it takes reports about ${owner}, so none are sent there`,
    dnssec,
    publish: [txtLine(name, "v=DMARC1;")],
  };
}
