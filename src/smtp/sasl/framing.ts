/**
 * SASL in lines of SMTP: the AUTH command, its challenges and responses (RFC 4954, section 4).
 * Bounded and strict: base64 in its canonical spelling, no white space, nothing after it.
 */
import { SaslError } from "./error.ts";
import { fromBase64, toBase64 } from "./octets.ts";

/** Octets of a challenge or response line without CRLF (RFC 4954, section 4, sets 12288). */
export const MAX_AUTH_LINE = 12288;
/** Octets of a command line without CRLF (RFC 5321, section 4.5.3.1.4). */
const MAX_COMMAND_LINE = 510;

const MECHANISM = /^[A-Z0-9_-]{1,20}$/; // RFC 4422, section 3.1

/** What came where a response was due. */
export type ResponseLine =
  | { readonly kind: "response"; readonly data: Uint8Array }
  | { readonly kind: "cancelled" };

/**
 * The AUTH command of a client, without CRLF. An initial response that makes it longer than a
 * command may be is held back: it answers the empty challenge that then comes.
 */
export function authCommand(
  mechanism: string,
  initial: Uint8Array | undefined,
): { readonly command: string; readonly held?: Uint8Array } {
  const bare = `AUTH ${mechanism}`;
  if (initial === undefined) return { command: bare };
  // "=" is an initial response of no octets, as opposed to none.
  const command = `${bare} ${initial.length === 0 ? "=" : toBase64(initial)}`;
  return command.length <= MAX_COMMAND_LINE ? { command } : { command: bare, held: initial };
}

/**
 * The octets of a challenge, from the text of a reply 334.
 * @throws SaslError `too-long` or `bad-base64`
 */
export function decodeChallenge(text: string): Uint8Array {
  return decodeLine(text, "challenge");
}

/**
 * A response or challenge as it stands on its line, without CRLF.
 * @throws SaslError `too-long`
 */
export function encodeLine(data: Uint8Array): string {
  const line = toBase64(data);
  if (line.length > MAX_AUTH_LINE) {
    throw new SaslError("too-long", `a message takes more than ${MAX_AUTH_LINE} octets of base64`);
  }
  return line;
}

/**
 * The arguments of AUTH as a server gets them. `initial` is absent when none was sent.
 * @throws SaslError `malformed`, `too-long` or `bad-base64`
 */
export function parseAuthArguments(
  text: string,
): { readonly mechanism: string; readonly initial?: Uint8Array } {
  const [name = "", initial, ...more] = text.split(" ");
  const mechanism = name.toUpperCase();
  if (!MECHANISM.test(mechanism) || more.length > 0 || initial === "") {
    throw new SaslError("malformed", "AUTH takes a mechanism and at most one initial response");
  }
  if (initial === undefined) return { mechanism };
  if (initial === "=") return { mechanism, initial: new Uint8Array(0) };
  return { mechanism, initial: decodeLine(initial, "initial response") };
}

/**
 * A client's line after a challenge, without CRLF; "*" alone cancels.
 * @throws SaslError `too-long` or `bad-base64`
 */
export function decodeResponse(line: string): ResponseLine {
  return line === "*"
    ? { kind: "cancelled" }
    : { kind: "response", data: decodeLine(line, "response") };
}

function decodeLine(text: string, what: string): Uint8Array {
  if (text.length > MAX_AUTH_LINE) {
    throw new SaslError("too-long", `the ${what} is longer than ${MAX_AUTH_LINE} octets`);
  }
  try {
    return fromBase64(text);
  } catch (error) {
    if (!(error instanceof SaslError)) throw error;
    throw new SaslError(error.reason, `the ${what} is not base64 (RFC 4648, section 4)`);
  }
}
