/**
 * PLAIN (RFC 4616), server side. The listener offers it over TLS only.
 */
import type { Accounts } from "./accounts.ts";
import { verifyPassword } from "./credentials.ts";
import { failureReason, SaslError } from "./error.ts";
import type { ServerMechanism, ServerStep } from "./mechanism.ts";
import { fromUtf8 } from "./octets.ts";
import { prepared } from "./prepare.ts";

export function plainServer(accounts: Accounts): ServerMechanism {
  let taken = false;
  return {
    name: "PLAIN",
    step(response) {
      if (taken) return Promise.resolve(malformed("a second message"));
      taken = true;
      return verify(response, accounts);
    },
  };
}

async function verify(response: Uint8Array, accounts: Accounts): Promise<ServerStep> {
  let username: string;
  let password: string;
  try {
    const [authzid, authcid, passwd, ...more] = fromUtf8(response).split("\0");
    if (!authcid || !passwd || more.length > 0) return malformed("not a message of PLAIN");
    username = prepared(authcid, "the user name", "query");
    password = passwd;
    if (authzid !== "" && prepared(authzid!, "the authorization identity", "query") !== username) {
      return {
        kind: "failure",
        reason: "credentials",
        username,
        detail: "asks for another's name",
      };
    }
  } catch (error) {
    if (!(error instanceof SaslError)) throw error;
    return { kind: "failure", reason: failureReason(error), detail: error.message };
  }
  const { credentials, known } = await accounts.find(username);
  const right = await verifyPassword(credentials, password);
  if (right && known) return { kind: "success", username };
  const detail = known ? "wrong password" : "no such account";
  return { kind: "failure", reason: "credentials", username, detail };
}

const malformed = (detail: string): ServerStep => ({
  kind: "failure",
  reason: "malformed",
  detail,
});
