/**
 * CRAM-MD5 (RFC 2195), client side: the keyed MD5 of the server's challenge. The server proves
 * nothing, and whoever records a login can guess at the password: for servers that have nothing
 * better.
 */
import { createHmac } from "node:crypto";
import { SaslError } from "./error.ts";
import type { ClientMechanism } from "./mechanism.ts";
import { utf8 } from "./octets.ts";
import { prepared } from "./prepare.ts";

/** @throws SaslError `credentials` when SASLprep refuses user name or password */
export function cramMd5Client(username: string, password: string): ClientMechanism {
  const name = prepared(username, "the user name", "query");
  const key = prepared(password, "the password");
  let state: "new" | "challenge" | "done" | "failed" = "new";
  return {
    name: "CRAM-MD5",
    start() {
      if (state !== "new") throw new SaslError("out-of-order", "CRAM-MD5 has begun already");
      state = "challenge";
      return undefined;
    },
    step(challenge) {
      const due = state === "challenge";
      state = "failed";
      if (!due) {
        return Promise.reject(new SaslError("out-of-order", "CRAM-MD5 has exactly one challenge"));
      }
      if (challenge.length === 0) {
        return Promise.reject(new SaslError("malformed", "the server's challenge is empty"));
      }
      state = "done";
      const digest = createHmac("md5", utf8(key)).update(challenge).digest("hex");
      return Promise.resolve(utf8(`${name} ${digest}`));
    },
    done: () => state === "done",
  };
}
