/**
 * PLAIN (RFC 4616) and LOGIN (draft-murchison-sasl-login), client side: both hand the password
 * to the server, so they are for verified TLS only (choose.ts sees to that). Name and password
 * go as they were given: preparing them is the server's part (RFC 4616, section 2).
 */
import { SaslError } from "./error.ts";
import type { ClientMechanism } from "./mechanism.ts";
import { joined, utf8 } from "./octets.ts";
import { MAX_CREDENTIAL } from "./prepare.ts";

const NUL = new Uint8Array(1);
const NOTHING = new Uint8Array(0);

/** @throws SaslError `credentials` when a part is empty, too long or has NUL in it */
export function plainClient(
  username: string,
  password: string,
  authzid?: string,
): ClientMechanism {
  const message = joined(
    authzid === undefined ? NOTHING : carried(authzid, "the authorization identity"),
    NUL,
    carried(username, "the user name"),
    NUL,
    carried(password, "the password"),
  );
  let state: "new" | "done" | "failed" = "new";
  return {
    name: "PLAIN",
    start() {
      if (state !== "new") throw new SaslError("out-of-order", "PLAIN has begun already");
      state = "done";
      return message;
    },
    step() {
      state = "failed";
      return Promise.reject(new SaslError("out-of-order", "PLAIN has no challenges"));
    },
    done: () => state === "done",
  };
}

/**
 * The server asks twice, in words that nobody agreed on: the first answer is the user name, the
 * second the password, whatever it asks.
 * @throws SaslError `credentials` when a part is empty, too long or has NUL in it
 */
export function loginClient(username: string, password: string): ClientMechanism {
  const answers = [carried(username, "the user name"), carried(password, "the password")];
  let begun = false;
  let given = 0;
  return {
    name: "LOGIN",
    start() {
      if (begun) throw new SaslError("out-of-order", "LOGIN has begun already");
      begun = true;
      return undefined;
    },
    step() {
      const answer = begun ? answers[given] : undefined;
      given++;
      return answer === undefined
        ? Promise.reject(new SaslError("out-of-order", "LOGIN has exactly two challenges"))
        : Promise.resolve(answer);
    },
    done: () => begun && given === answers.length,
  };
}

function carried(text: string, what: string): Uint8Array {
  const octets = utf8(text);
  if (
    octets.length === 0 || octets.length > MAX_CREDENTIAL || text.includes("\0") ||
    !text.isWellFormed()
  ) {
    throw new SaslError(
      "credentials",
      `${what} must have 1 to ${MAX_CREDENTIAL} octets of UTF-8, and no NUL, to be sent`,
    );
  }
  return octets;
}
