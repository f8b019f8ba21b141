/**
 * How much proof of the other side there was, in words: DNSSEC, DANE, MTA-STS (RFC 7672, RFC 8461),
 * and what followed from it for the sessions.
 */
import type { EventData } from "../../events/catalogue.ts";

type Field = readonly [string, string | undefined];

/** What was found out about the destination as a whole. */
export function destinationFields(destination: EventData<"DestinationsResolved">): Field[] {
  const { dnssec, nextHop, expanded, unicode, ignored, mtaSts } = destination;
  const alias = expanded === nextHop ? "" : `, ${expanded} ${dnssec.expanded}`;
  return [
    ["", unicode === undefined ? undefined : `that is ${unicode}`],
    ["dnssec", dnssec.nextHop === "unchecked" ? undefined : `${nextHop} ${dnssec.nextHop}${alias}`],
    ["left out", ignored?.join(", ")],
    ["mta-sts", mtaSts && policyText(mtaSts)],
  ];
}

/** A policy in a line: `enforce, mx1.example.org (id 20260101, from the cache)`. */
export function policyText(
  policy: NonNullable<EventData<"DestinationsResolved">["mtaSts"]>,
): string {
  switch (policy.status) {
    case "none":
      return `none: ${policy.why}`;
    case "error":
      return `no policy to go by: ${policy.why}`;
    case "temporary":
      return `no answer: ${policy.reason}`;
    case "policy": {
      const { mode, id, mx, from, why } = policy;
      const source = from === "cache" ? "from the cache" : "fetched";
      return `${mode}, ${mx.join(" ")} (id ${id}, ${source})${why === undefined ? "" : `: ${why}`}`;
    }
  }
}

/** What was found out about a host, and what was asked of it. */
export function hostFields(host: EventData<"TLSAGathered">): Field[] {
  const [first = "", ...more] = gathered(host);
  return [["host", first], ...more.map((line): Field => ["", line])];
}

/** The same as lines of their own. */
export function gathered(host: EventData<"TLSAGathered">): string[] {
  const { dnssec, expanded, addresses, tlsa, base, records, verdict, why, unicode } = host;
  const name = unicode === undefined ? host.host : `${host.host} (${unicode})`;
  const alias = expanded === host.host ? "" : ` = ${expanded} (${dnssec.expanded})`;
  const status = dnssec.host === "unchecked" ? "" : ` (${dnssec.host})`;
  const found = addresses.join(" ") || "no address";
  const required = verdict === "try"
    ? `${host.tlsMode}${host.verifiedBy === "none" ? "" : ` by ${host.verifiedBy}`}`
    : verdict === "skip"
    ? "passed over"
    : "not dialled";
  const names = host.names.length > 0 ? `, for ${host.names.join(" or ")}` : "";
  return [
    `${name}${status}${alias}: ${found}${host.dualStack ? " (dual stack)" : ""}`,
    ...(tlsa === "records"
      ? records.map((record) => `TLSA of ${base ?? host.host}: ${recordLine(record)}`)
      : []),
    `required: ${required}${names}: ${why.join("; ")}`,
  ];
}

/** `3 1 1 8cb0fc6c527506a0…`, and why it is unusable where it is. */
function recordLine(record: EventData<"TLSAGathered">["records"][number]): string {
  const { usage, selector, matching, data, unusable } = record;
  const shown = data.length > 32 ? `${data.slice(0, 32)}…` : data;
  const fault = unusable === undefined ? "" : ` (unusable: ${unusable})`;
  return `${usage} ${selector} ${matching} ${shown}${fault}`;
}

/** What vouched for the certificate of a session with TLS. */
export function proofOf(
  { tlsMode, verifiedBy, proof, testing }: Pick<
    EventData<"HostTried">,
    "tlsMode" | "verifiedBy" | "proof" | "testing"
  >,
): string {
  const by = tlsMode === "verified" && verifiedBy === "none"
    ? "and it was not"
    : `verified by ${verifiedBy}${proof === undefined ? "" : `: ${proof}`}`;
  if (!testing) return by;
  return `${by}; MTA-STS in testing would ${testing.ok ? "accept" : "refuse"}: ${testing.detail}`;
}
