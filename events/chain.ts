/**
 * The hash chain: each event of a stream carries the hash of the one before it (`prev`) and a hash
 * of its own, so that nothing in the middle of a stream can be changed, dropped or moved unseen.
 *
 * hash = SHA-256( prev in hex, LF, canonical JSON (RFC 8785) of
 *                 {data, position, schema, stream, time, type, version} ), in hex.
 *
 * Verifying works on raw rows and asks no schema: it proves what was written, not what it means.
 */
import { createHash } from "node:crypto";
import canonicalize from "canonicalize";
import type { RawEvent } from "./engine.ts";

/** What stands as `prev` in the first event of a stream. */
export const GENESIS = "0".repeat(64);

export const sha256 = (text: string): string => createHash("sha256").update(text).digest("hex");

/**
 * Canonical JSON (RFC 8785).
 * @throws Error for what JSON cannot say: NaN, infinities, cycles, lone surrogates
 */
export function canonicalJson(value: unknown): string {
  const text = canonicalize(value);
  if (text === undefined) throw new TypeError("value has no JSON form");
  return text;
}

/** The value with lone surrogates, as cutting a text leaves them behind, replaced by U+FFFD. */
export function wellFormed(value: unknown): unknown {
  if (typeof value === "string") return value.toWellFormed();
  if (Array.isArray(value)) return value.map(wellFormed);
  if (value === null || typeof value !== "object") return value;
  return Object.fromEntries(
    Object.entries(value).map(([key, member]) => [key.toWellFormed(), wellFormed(member)]),
  );
}

/**
 * Hash of an event. The members are written in the order that RFC 8785, section 3.2.3 gives them;
 * `data` already is canonical text, and for the other values JSON.stringify is the canonical form.
 */
export function eventHash(event: Omit<RawEvent, "hash">): string {
  return sha256(
    `${event.prev}\n{"data":${event.data},"position":${event.position},"schema":${event.schema},` +
      `"stream":${JSON.stringify(event.stream)},"time":${JSON.stringify(event.time)},` +
      `"type":${JSON.stringify(event.type)},"version":${event.version}}`,
  );
}

/** The event before another in its stream, as far as the chain needs it. */
export type Link = { readonly version: number; readonly hash: string };

/** What is wrong with an event, seen from the one before it in its stream (undefined: the first). */
export function chainFindings(event: RawEvent, before: Link | undefined): string[] {
  const findings = linkFindings(event, before);
  if (!isCanonical(event.data)) findings.push("data is not canonical JSON");
  return findings;
}

/** The same without looking at the form of the data, whose hash was right: cheap enough always. */
export function linkFindings(event: RawEvent, before: Link | undefined): string[] {
  const findings: string[] = [];
  const expected = (before?.version ?? 0) + 1;
  if (event.version !== expected) {
    findings.push(`version ${event.version} follows version ${expected - 1}, not ${expected}`);
  }
  if (event.prev !== (before?.hash ?? GENESIS)) {
    findings.push("prev is not the hash of the event before it in its stream");
  }
  if (eventHash(event) !== event.hash) findings.push("hash does not cover the content");
  return findings;
}

function isCanonical(text: string): boolean {
  try {
    return canonicalJson(JSON.parse(text)) === text;
  } catch {
    return false;
  }
}
