/** A message and its history as lines for people. */
import type { EventData } from "../../events/catalogue.ts";
import type { AttemptJson, HostJson, MessageDetailJson, NoteJson } from "../http/message_json.ts";
import { formatPath } from "../config/problems.ts";
import { destinationFields, hostFields, proofOf } from "./security_story.ts";
import { address, duration, octets, visible } from "./terminal.ts";

const LABEL = 12;

/** @param now epoch milliseconds */
export function messageStory(message: MessageDetailJson, now: number, final: boolean): string {
  const { envelope, history, notes } = message;
  const lines = [
    `${message.id}  ${message.state}`,
    ...fields("", [
      ["from", address(message.from)],
      ["to", message.to],
      ["account", message.account],
      ["Message-ID", envelope.messageId],
      ["size", `${octets(message.size)} (${message.size} octets)`],
      ["needs", needs(envelope)],
      ["dsn", dsn(envelope.dsn)],
      ["signed", signed(envelope.signatures)],
      ["priority", envelope.priority === undefined ? null : String(envelope.priority)],
      ["submission", message.submission],
      ["metadata", metadata(envelope.metadata)],
      ["came in", `${message.created}, ${ago(message.created, now)}, ${origin(envelope.source)}`],
      ["attempts", String(message.attempts)],
      ["next", final ? null : when(message.nextAttempt, now)],
      ["override", message.transportOverride],
      ["last error", message.lastError],
      ["archived", message.archived === null ? null : `in archive/${message.archived}`],
    ]),
  ];
  for (const attempt of history) lines.push("", ...attemptLines(attempt));
  if (notes.length > 0) lines.push("", ...notes.map(note));
  return lines.map((line) => `${line}\n`).join("");
}

/** One line per field that has a value, aligned and safe. */
function fields(
  indent: string,
  entries: readonly (readonly [string, string | null | undefined])[],
): string[] {
  return entries.flatMap(([label, value]) =>
    value === null || value === undefined
      ? []
      : [`${indent}${label.padEnd(LABEL)}${visible(value)}`]
  );
}

const ago = (time: string, now: number): string => `${duration(now - Date.parse(time))} ago`;

function when(time: string | null, now: number): string | null {
  if (time === null) return null;
  const wait = Date.parse(time) - now;
  return `${time}, ${wait > 0 ? `in ${duration(wait)}` : "due"}`;
}

/** By which keys, of what they say of themselves. */
function signed(signatures: readonly string[] | undefined): string | null {
  if (!signatures) return null;
  const tag = (field: string, name: string) =>
    new RegExp(`;\\s*${name}=([^;\\s]*)`).exec(field)?.[1] ?? "?";
  const keys = signatures.map((one) => `${tag(one, "d")} (${tag(one, "s")}, ${tag(one, "a")})`);
  return `DKIM: ${keys.join(", ")}`;
}

function needs(envelope: MessageDetailJson["envelope"]): string | null {
  const { has8bit, smtputf8, requireTLS, tlsOptional } = envelope;
  const all = [
    has8bit && "8BITMIME",
    smtputf8 && "SMTPUTF8",
    requireTLS && "REQUIRETLS",
    tlsOptional && "TLS-Required: No",
  ];
  return all.filter(Boolean).join(", ") || null;
}

const metadata = (entries: EventData<"Enqueued">["metadata"] = {}): string | null =>
  Object.entries(entries).map(([key, value]) => `${key}=${value}`).join(", ") || null;

function dsn({ notify, ret, envid, orcpt }: EventData<"Enqueued">["dsn"]): string | null {
  const parts = [
    notify && `NOTIFY=${notify.join(",")}`,
    ret && `RET=${ret}`,
    envid && `ENVID=${envid}`,
    orcpt && `ORCPT=${orcpt}`,
  ];
  return parts.filter(Boolean).join(" ") || null;
}

function origin(source: EventData<"Enqueued">["source"]): string {
  const parts = [
    `by ${source.kind}`,
    source.of && `about ${source.of}`,
    source.listener && `listener ${source.listener}`,
    source.peer && `from ${source.peer}`,
    source.helo && `as ${source.helo}`,
    source.login && `login ${source.login}`,
    source.tls && `${source.tls.protocol} ${source.tls.cipher}`,
  ];
  return parts.filter(Boolean).join(", ");
}

function attemptLines(story: AttemptJson) {
  const { attempt, started, transport, destinations, hosts, outcome } = story;
  return [
    `attempt ${attempt}, ${started}${waitedFor(story.waited)}`,
    ...fields("  ", [
      ["transport", transport && `${transport.transport}, ${because(transport)}`],
      ["next hop", destinations && nextHop(destinations)],
    ]),
    ...fields("  ", destinations ? destinationFields(destinations) : []),
    ...story.gathered.flatMap((host) => fields("  ", hostFields(host))),
    ...hosts.flatMap(hostLines),
    ...fields("  ", [outcome ? outcomeField(outcome) : ["running", "no outcome yet"]]),
  ];
}

/** Why a transport was chosen: `domains."example.com".routes[0] (to_domain example.org)`. */
export function because({ because, undecided }: EventData<"TransportChosen">): string {
  const passed = undecided ? `; not to be told: ${undecided.join("; ")}` : "";
  return `${reasonOf(because)}${passed}`;
}

function reasonOf(because: EventData<"TransportChosen">["because"]): string {
  switch (because.kind) {
    case "default":
      return "no route matched";
    case "override":
      return `assigned by ${because.who}`;
    case "route": {
      const { scope, owner, index, matched } = because;
      const place = scope === "global"
        ? `routes[${index}]`
        : `${formatPath([`${scope}s`, owner ?? ""])}.routes[${index}]`;
      const criteria = Object.entries(matched).map(([name, value]) => `${name} ${value}`);
      return criteria.length > 0 ? `${place} (${criteria.join(", ")})` : place;
    }
  }
}

/** The hosts of a destination in order: `example.org by mx: 10 mx1.example.org, …`. */
export function nextHop(
  { nextHop, expanded, by, hosts }: EventData<"DestinationsResolved">,
): string {
  const name = expanded === nextHop ? nextHop : `${nextHop} = ${expanded}`;
  const found = hosts.map(({ host, preference }) => by === "mx" ? `${preference} ${host}` : host);
  return `${name} by ${by}: ${found.join(", ") || "no host"}`;
}

/** What became of a host, in one line. */
export function hostResult(host: EventData<"HostTried">): string {
  const { address: ip, port, reused, tlsMode, tls, reply, result, error } = host;
  const { proxy, login } = host;
  const dialled = ip === undefined ? "no address" : `[${ip}]:${port ?? 25}`;
  const security = tls
    ? `${tls.protocol} ${tls.cipher} (${tlsMode}, ${proofOf(host)})`
    : `no TLS (${tlsMode}${host.fallback ? ", after TLS had failed" : ""})`;
  const said = reply ? replyText(reply) : undefined;
  const parts = [
    `${host.host} ${dialled}${reused ? " (kept session)" : ""}`,
    proxy && `through proxy ${proxy}`,
    security,
    login && `login ${login.username} by ${login.mechanism}`,
    result,
    said,
    error,
  ];
  return parts.filter((part) => part !== undefined).join(", ");
}

/** A reply in one line; the enhanced code is often the beginning of the text already. */
export function replyText({ code, enhanced, text }: NonNullable<EventData<"HostTried">["reply"]>) {
  const lines = text.replaceAll("\n", " / ");
  return enhanced === undefined || lines.startsWith(enhanced)
    ? `${code} ${lines}`
    : `${code} ${enhanced} ${lines}`;
}

function hostLines(host: HostJson): string[] {
  const phases = Object.entries(host.phases).map(([phase, ms]) => `${phase} ${ms} ms`).join(", ");
  return [
    ...fields("  ", [["tried", hostResult(host)], ["", phases || null]]),
    ...(host.transcript ?? []).map(({ at, who, line }) =>
      `    ${String(at).padStart(6)} ${who}: ${visible(line)}`
    ),
  ];
}

function outcomeField(outcome: NonNullable<AttemptJson["outcome"]>): [string, string] {
  if (outcome.type === "Delivered") {
    const { host, address: ip, reply, time, queued } = outcome;
    const after = duration(queued);
    return ["delivered", `${time}, to ${host} [${ip}], after ${after}: ${replyText(reply)}`];
  }
  const { permanent, reason, time, next } = outcome;
  const kind = permanent ? "permanent" : "temporary";
  return ["failed", `${time}, ${kind}: ${reason}${next === undefined ? "" : `; next ${next}`}`];
}

function note({ type, time, data }: NoteJson): string {
  const facts = Object.entries(data).map(([name, value]) =>
    `${name} ${typeof value === "string" ? value : JSON.stringify(value)}`
  );
  return visible(`${time}  ${type}  ${facts.join(", ")}`);
}

/** That an attempt came late because its destination was down, and why it was. */
export const waitedFor = (waited: AttemptJson["waited"]): string =>
  waited === undefined
    ? ""
    : `; waited since ${waited.since} for its destination, which was down: ${visible(waited.why)}`;
