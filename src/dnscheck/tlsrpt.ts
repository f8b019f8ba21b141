/** TLSRPT: where reports about TLS to the domain go (RFC 8460, section 3). */
import type { CheckPorts, Finding, Level } from "./finding.ts";
import type { Subject } from "./subject.ts";
import { parseTags, tagOf } from "./tags.ts";
import { orNoAnswer, textsAt } from "./texts.ts";
import { mailto, txtLine } from "./zone.ts";

export const tlsrptRecord = (reportsTo: string): string => `v=TLSRPTv1; rua=${mailto(reportsTo)}`;

export function checkTlsrpt(ports: CheckPorts, { domain }: Subject): Promise<readonly Finding[]> {
  const name = `_smtp._tls.${domain}`;
  return orNoAnswer("tlsrpt", name, async () => {
    const { texts, dnssec } = await textsAt(ports, name);
    const finding = (level: Level, found: string): Finding => ({
      check: "tlsrpt",
      level,
      name,
      found,
      dnssec,
      publish: level === "ok" ? [] : [txtLine(name, tlsrptRecord(`postmaster@${domain}`))],
    });
    const records = texts.filter((text) => /^v=TLSRPT/i.test(text));
    const [record] = records;
    if (record === undefined) {
      return [finding("warning", "there is no TLSRPT record: nobody reports what goes wrong")];
    }
    if (records.length > 1) {
      return [finding("error", `there are ${records.length} records, so senders ignore all`)];
    }
    const fault = faultOf(record);
    return [
      fault === undefined
        ? finding("ok", `"${record}"`)
        : finding("error", `"${record}": ${fault}`),
    ];
  });
}

function faultOf(record: string): string | undefined {
  const tags = parseTags(record);
  if (typeof tags === "string") return tags;
  if (tags[0]?.name !== "v" || tags[0].value !== "TLSRPTv1") {
    return "it does not begin with v=TLSRPTv1";
  }
  const rua = tagOf(tags, "rua");
  if (rua === undefined) return "it has no rua=";
  const bad = rua.split(",").map((uri) => uri.trim()).find((uri) =>
    !/^mailto:[^@\s!]+@[A-Za-z0-9.-]+$/i.test(uri) && !/^https:\/\/[^\s!]+$/i.test(uri)
  );
  return bad === undefined ? undefined : `"${bad.slice(0, 60)}" is no mailto: or https: URI`;
}
