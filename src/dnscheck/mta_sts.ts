/** MTA-STS: record, policy, and whether the policy covers the MX hosts (RFC 8461). */
import { createHash } from "node:crypto";
import { parseStsPolicy, PolicyError, policyLines, type StsPolicy } from "../tls/mta_sts_policy.ts";
import { parseStsRecord } from "../tls/mta_sts_record.ts";
import type { CheckPorts, Dnssec, Finding, Level } from "./finding.ts";
import type { Subject } from "./subject.ts";
import { orNoAnswer, textsAt } from "./texts.ts";
import { txtLine } from "./zone.ts";

/** Seconds: less gives an attacker a gap every other day (RFC 8461, section 10.2: "weeks"). */
const SHORT_AGE = 7 * 86_400;

/** Seconds: two weeks. */
const MAX_AGE = 14 * 86_400;

/**
 * The policy for MX hosts, as its file has it. In testing: `enforce` is for servers whose
 * certificates a CA vouches for, which is not known here.
 */
export const stsPolicy = (mx: readonly string[]): string =>
  policyLines({ mode: "testing", mx, maxAge: MAX_AGE }).map((line) => `${line}\r\n`).join("");

/** The record for a policy. Its id changes with the policy (RFC 8461, section 3.1). */
export const stsRecord = (policy: string): string =>
  `v=STSv1; id=${createHash("sha256").update(policy).digest("hex").slice(0, 20)}`;

/** Lines of a zone file that publish a policy; its file stands in comments. */
export const stsLines = (domain: string, policy: string): string[] => [
  txtLine(`_mta-sts.${domain}`, stsRecord(policy)),
  `; https://mta-sts.${domain}/.well-known/mta-sts.txt (text/plain) has to be:`,
  ...policy.trimEnd().split("\r\n").map((line) => `;   ${line}`),
];

export function checkMtaSts(ports: CheckPorts, subject: Subject): Promise<readonly Finding[]> {
  const { domain, hostname } = subject;
  const name = `_mta-sts.${domain}`;
  return orNoAnswer("mta-sts", name, async () => {
    const { records, texts, dnssec } = await textsAt(ports, name);
    const finding = (
      level: Level,
      at: string,
      found: string,
      publish: readonly string[] = [],
      signed: Dnssec | undefined = dnssec,
    ): Finding => ({
      check: "mta-sts",
      level,
      name: at,
      found,
      publish,
      ...(signed ? { dnssec: signed } : {}),
    });
    const record = parseStsRecord(records);
    const { records: mx } = await ports.resolver.query(domain, "MX", ports.signal);
    if (!record.ok) {
      const hosts = mx.length > 0 ? mx.map(({ exchange }) => exchange) : [hostname];
      const suggestion = stsLines(domain, stsPolicy(hosts));
      const tried = texts.some((text) => /^v=STS/i.test(text));
      const what = tried ? "" : ": others may send to the domain in plain text";
      return [finding(tried ? "error" : "warning", name, record.why + what, suggestion)];
    }
    const url = `https://mta-sts.${domain}/.well-known/mta-sts.txt`;
    let policy: StsPolicy;
    try {
      policy = parseStsPolicy(await ports.policies.fetch(domain, ports.signal));
    } catch (error) {
      if (!(error instanceof PolicyError)) throw error;
      return [finding("error", url, error.message, [], undefined)];
    }
    const { mode, maxAge } = policy;
    const findings: Finding[] = [
      mode === "none"
        ? finding("warning", url, "the mode none asks senders for nothing", [], undefined)
        : finding("ok", url, `id ${record.id}, mode ${mode}, max_age ${maxAge}`, [], undefined),
    ];
    if (mode !== "none" && maxAge < SHORT_AGE) {
      const found = `max_age ${maxAge} is less than a week; let it be weeks`;
      findings.push(finding("warning", url, found, [], undefined));
    }
    const bare = mx.filter(({ exchange }) => !covers(policy.mx, exchange));
    if (bare.length > 0 && mode !== "none") {
      const hosts = bare.map(({ exchange }) => exchange).join(", ");
      const found = `the policy does not name the MX ${hosts}: senders that obey it will not ` +
        `deliver there; add ${bare.map(({ exchange }) => `"mx: ${exchange}"`).join(" and ")}`;
      findings.push(finding(mode === "enforce" ? "error" : "warning", url, found, [], undefined));
    }
    return findings;
  });
}

/** RFC 8461, section 4.1: a wildcard stands for exactly one label. */
const covers = (patterns: readonly string[], host: string): boolean =>
  patterns.some((pattern) =>
    pattern === host ||
    (pattern.startsWith("*.") && host.slice(host.indexOf(".") + 1) === pattern.slice(2))
  );
