/**
 * The policy that a domain publishes at `https://mta-sts.DOMAIN/.well-known/mta-sts.txt`
 * (RFC 8461, section 3.2): lines of `key: value`, ended by LF or CRLF.
 */
import { hostName } from "../dns/names.ts";

export interface StsPolicy {
  readonly mode: "enforce" | "testing" | "none";
  /** Patterns: names as A-labels in lower case, perhaps with "*." in front. */
  readonly mx: readonly string[];
  /** Seconds that it may be kept. */
  readonly maxAge: number;
}

/** What is wrong with a policy, or with getting it, in the words of RFC 8460, section 4.3.2.2. */
export class PolicyError extends Error {
  override readonly name = "PolicyError";
  constructor(
    readonly type: "sts-policy-fetch-error" | "sts-policy-invalid" | "sts-webpki-invalid",
    message: string,
  ) {
    super(message);
  }
}

/** Octets of a policy (RFC 8461, section 3.3). */
export const MAX_POLICY = 64 * 1024;
/** Seconds: a year (RFC 8461, section 3.2). */
export const MAX_AGE = 31_557_600;
/** Patterns: ten times what the largest receivers publish, and little enough for the log. */
export const MAX_PATTERNS = 250;

const LINE = /^([A-Za-z0-9][A-Za-z0-9_.-]{0,31})[ \t]*:[ \t]*(.*?)[ \t]*$/;

/** @throws PolicyError `sts-policy-invalid` naming the line or key that is off */
export function parseStsPolicy(octets: Uint8Array): StsPolicy {
  if (octets.length > MAX_POLICY) throw invalid(`it has more than ${MAX_POLICY} octets`);
  let text: string;
  try {
    text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(octets);
  } catch {
    throw invalid("it is not UTF-8 text");
  }
  const first = new Map<string, string>();
  const mx: string[] = [];
  for (const [n, line] of text.split(/\r?\n/).entries()) {
    if (/^[ \t]*$/.test(line)) continue; // at the end, and harmless elsewhere
    const [, key, value] = LINE.exec(line) ?? [];
    if (key === undefined || value === undefined || /\p{Cc}/u.test(value)) {
      throw invalid(`line ${n + 1} is not "key: value"`);
    }
    if (key === "mx") mx.push(pattern(value, n + 1));
    else if (!first.has(key)) first.set(key, value); // later ones are ignored: section 3.2
  }
  if (first.get("version") !== "STSv1") throw invalid("its version is not STSv1");
  const mode = first.get("mode");
  if (mode !== "enforce" && mode !== "testing" && mode !== "none") {
    throw invalid(mode === undefined ? "it has no mode" : "its mode is not one that there is");
  }
  const age = first.get("max_age");
  if (age === undefined || !/^\d{1,10}$/.test(age)) throw invalid("it has no max_age in seconds");
  const maxAge = Number(age);
  if (maxAge > MAX_AGE) throw invalid(`its max_age is more than a year (${MAX_AGE} s)`);
  if (mx.length === 0 && mode !== "none") throw invalid("it names no mx");
  if (mx.length > MAX_PATTERNS) throw invalid(`it names more than ${MAX_PATTERNS} mx`);
  return { mode, mx: [...new Set(mx)], maxAge };
}

function pattern(value: string, line: number): string {
  const wildcard = value.startsWith("*.");
  const name = hostName(wildcard ? value.slice(2) : value);
  if (name === undefined) throw invalid(`the mx in line ${line} is not a host name or *.name`);
  return wildcard ? `*.${name}` : name;
}

const invalid = (why: string): PolicyError =>
  new PolicyError("sts-policy-invalid", `the policy is not valid: ${why}`);

/** The policy as lines (RFC 8460, section 4.4: policy-string). */
export function policyLines({ mode, mx, maxAge }: StsPolicy): string[] {
  return [
    "version: STSv1",
    `mode: ${mode}`,
    ...mx.map((name) => `mx: ${name}`),
    `max_age: ${maxAge}`,
  ];
}
