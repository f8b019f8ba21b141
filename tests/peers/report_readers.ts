/**
 * Reports to senders as programs of others read them: Python's email package, Mailman's bounce
 * detector, and bounce-handler from npm.
 */
import { BounceHandler } from "bounce-handler";
import { run } from "./postfix.ts";

const PYTHON = new URL("./python/", import.meta.url).pathname;
/** Which has flufl.bounce, as the package python3-flufl.bounce brings it. */
const DEBIAN_PYTHON = "/usr/bin/python3";

/** What Python's email package makes of a delivery status notification. */
export interface ParsedReport {
  readonly type: string;
  readonly reportType: string | null;
  readonly from: string | null;
  readonly to: string | null;
  readonly subject: string | null;
  readonly autoSubmitted: string | null;
  readonly returnPath: string | null;
  readonly messageId: string | null;
  readonly date: string | null;
  readonly parts: readonly string[];
  readonly text: string;
  /** The fields about the message, then those about each recipient. */
  readonly status: readonly Readonly<Record<string, string>>[];
  /** The last part, decoded, where there are three. */
  readonly original: string;
  readonly defects: readonly string[];
}

export async function parseReport(file: string): Promise<ParsedReport> {
  return JSON.parse(await run("python3", [`${PYTHON}parse_report.py`, file])) as ParsedReport;
}

/** Whom Mailman would count as bouncing: addresses, sorted. */
export interface Detected {
  readonly permanent: readonly string[];
  readonly temporary: readonly string[];
}

export async function detectBounce(file: string): Promise<Detected> {
  return JSON.parse(await run(DEBIAN_PYTHON, [`${PYTHON}detect_bounce.py`, file])) as Detected;
}

export interface Bounce {
  /** The Original-Recipient, where there is one; else the Final-Recipient. */
  readonly recipient: string;
  readonly status: string;
  readonly action: string;
  /** Of the message that is reported on. */
  readonly messageid: string;
}

/**
 * What bounce-handler makes of it, a recipient each. It takes one digit of each part of a status
 * (5.7.26 becomes 5.7.2), leaves the escapes of RFC 6533 in addresses as they are, and never looks
 * at the types of the parts, only at their order.
 */
export async function handleBounce(file: string): Promise<readonly Bounce[]> {
  const handler: { parse_email(message: string): Bounce[] } = new BounceHandler();
  return handler.parse_email(await Deno.readTextFile(file));
}
