/**
 * OAUTHBEARER (RFC 7628) and its forerunner XOAUTH2, client side: a bearer token instead of a
 * password. For verified TLS only (choose.ts sees to that): whoever reads a token can use it.
 */
import { SaslError } from "./error.ts";
import type { ClientMechanism } from "./mechanism.ts";
import { fromUtf8, utf8 } from "./octets.ts";
import { MAX_CREDENTIAL } from "./prepare.ts";
import { escapeName } from "./scram.ts";

export interface BearerCredentials {
  readonly username: string;
  /** RFC 6750, section 2.1, `b64token`. */
  readonly token: string;
  /** The server as it was dialled; sent with OAUTHBEARER where given. */
  readonly host?: string;
  readonly port?: number;
}

const SEPARATOR = "\x01";
/** Leaves room for all else in one AUTH line. */
const MAX_TOKEN = 6144;

/** The statuses of RFC 7628, section 3.2.2, and RFC 6750; XOAUTH2 servers give HTTP codes. */
const STATUSES: ReadonlySet<string> = new Set([
  "invalid_token",
  "insufficient_scope",
  "invalid_request",
]);

/** @throws SaslError `credentials` for a user name, host or token that it cannot carry */
export function oauthBearerClient(credentials: BearerCredentials): ClientMechanism {
  const { username, token, host, port } = checked(credentials);
  const message = [
    `n,a=${escapeName(username)},`,
    ...(host === undefined ? [] : [`host=${host}`]),
    ...(port === undefined ? [] : [`port=${port}`]),
    `auth=Bearer ${token}`,
    SEPARATOR,
  ];
  // After an error the client sends one separator to get the failure (RFC 7628, section 3.2.3).
  return bearer("OAUTHBEARER", utf8(message.join(SEPARATOR)), utf8(SEPARATOR));
}

/** @throws SaslError `credentials` for a user name or token that it cannot carry */
export function xoauth2Client(credentials: BearerCredentials): ClientMechanism {
  const { username, token } = checked(credentials);
  const message = [`user=${username}`, `auth=Bearer ${token}`, SEPARATOR];
  return bearer("XOAUTH2", utf8(message.join(SEPARATOR)), new Uint8Array(0));
}

function bearer(
  name: "OAUTHBEARER" | "XOAUTH2",
  message: Uint8Array,
  acknowledgement: Uint8Array,
): ClientMechanism {
  let state: "new" | "done" | "refused" | "failed" = "new";
  let refusal: string | undefined;
  return {
    name,
    start() {
      if (state !== "new") throw new SaslError("out-of-order", `${name} has begun already`);
      state = "done";
      return message;
    },
    // deno-lint-ignore require-await -- so that what it throws rejects
    async step(challenge) {
      const due = state === "done";
      state = due ? "refused" : "failed";
      if (!due) throw new SaslError("out-of-order", `${name} has one challenge at most`);
      refusal = statusOf(fromUtf8(challenge));
      return acknowledgement;
    },
    done: () => state === "done",
    get refusal() {
      return refusal;
    },
  };
}

/** The status in the server's error, where it is one of those defined; all else is not repeated. */
function statusOf(error: string): string {
  const unknown = "the token is refused";
  let status: unknown;
  try {
    status = (JSON.parse(error) as { status?: unknown } | null)?.status;
  } catch {
    return unknown;
  }
  const known = typeof status === "string" && (STATUSES.has(status) || /^[45]\d\d$/.test(status));
  return known ? `${unknown}: ${status}` : unknown;
}

function checked(credentials: BearerCredentials): BearerCredentials {
  const { username, token, host, port } = credentials;
  const refuse = (why: string) => new SaslError("credentials", why);
  // deno-lint-ignore no-control-regex -- control characters would end a field
  if (!/^[^\x00-\x1f\x7f]+$/.test(username) || utf8(username).length > MAX_CREDENTIAL) {
    throw refuse("the user name is empty, too long or has control characters");
  }
  if (token.length > MAX_TOKEN || !/^[A-Za-z0-9._~+/-]+=*$/.test(token)) {
    throw refuse(
      `the token is not a bearer token (RFC 6750, section 2.1) of up to ${MAX_TOKEN} octets; ` +
        "look at what the command or file that gives it prints",
    );
  }
  if (host !== undefined && !/^[A-Za-z0-9.:-]{1,255}$/.test(host)) {
    throw refuse("the host is neither a name nor an address");
  }
  if (port !== undefined && !(Number.isInteger(port) && port > 0 && port < 65536)) {
    throw refuse("the port is not one of 1 to 65535");
  }
  return credentials;
}
