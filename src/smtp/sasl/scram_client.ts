/**
 * The client's side of SCRAM (RFC 5802; SHA-256: RFC 7677; channel binding: RFC 5929, RFC 9266).
 *
 * A login is: client-first, server-first, client-final, server-final. The server's word counts
 * only once the signature in server-final shows that it knows the password's key and that both
 * sides saw the same messages.
 */
import { SaslError } from "./error.ts";
import type { ChannelBinding, ClientMechanism, RandomBytes } from "./mechanism.ts";
import { fromBase64, fromUtf8, joined, sameOctets, toBase64, utf8 } from "./octets.ts";
import { prepared } from "./prepare.ts";
import {
  attributes,
  clientKey,
  digest,
  escapeName,
  hmac,
  isNonce,
  MAX_ITERATIONS,
  MAX_SALT,
  MIN_ITERATIONS,
  type SaltedPassword,
  saltedPassword,
  scramHash,
  type ScramName,
  serverKey,
  xor,
} from "./scram.ts";

export interface ScramClientOptions {
  readonly name: ScramName;
  readonly username: string;
  readonly password: string;
  /** On whose behalf, where that is somebody else (RFC 4422, section 3.4.1). */
  readonly authzid?: string;
  /** Required for -PLUS. */
  readonly channelBinding?: ChannelBinding;
  /**
   * We could bind to the channel and the server did not offer it: says so, under the signature,
   * so that a server whose offer was tampered with notices (RFC 5802, section 6).
   */
  readonly bindingNotOffered?: boolean;
  readonly random: RandomBytes;
  /** Iterations taken, both inclusive; default MIN_ITERATIONS and MAX_ITERATIONS. */
  readonly minIterations?: number;
  readonly maxIterations?: number;
  readonly saltedPassword?: SaltedPassword;
}

/** 192 bits, and no padding in base64. */
const NONCE_OCTETS = 24;

/** The errors of RFC 5802, section 7; other text is not repeated, it might be anything. */
const SERVER_ERRORS: ReadonlySet<string> = new Set([
  "invalid-encoding",
  "extensions-not-supported",
  "invalid-proof",
  "channel-bindings-dont-match",
  "server-does-support-channel-binding",
  "channel-binding-not-supported",
  "unsupported-channel-binding-type",
  "unknown-user",
  "invalid-username-encoding",
  "no-resources",
]);

type State = "new" | "server-first" | "computing" | "server-final" | "done" | "failed";

/**
 * @throws SaslError `credentials` when SASLprep refuses user name or password
 * @throws Error when -PLUS has no channel binding: a fault of the caller
 */
export function scramClient(options: ScramClientOptions): ClientMechanism {
  const { name, channelBinding } = options;
  const plus = name.endsWith("-PLUS");
  if (plus && channelBinding === undefined) throw new Error(`${name} needs channel binding data`);
  const hash = scramHash(name);
  const least = options.minIterations ?? MIN_ITERATIONS;
  const most = options.maxIterations ?? MAX_ITERATIONS;
  const salted = options.saltedPassword ?? saltedPassword;

  const username = prepared(options.username, "the user name", "query");
  const password = prepared(options.password, "the password");
  const authzid = options.authzid === undefined
    ? ""
    : `a=${escapeName(prepared(options.authzid, "the authorization identity", "query"))}`;
  const flag = plus ? `p=${channelBinding!.type}` : options.bindingNotOffered ? "y" : "n";
  const gs2Header = `${flag},${authzid},`;
  const nonce = toBase64(options.random(NONCE_OCTETS));
  const clientFirstBare = `n=${escapeName(username)},r=${nonce}`;

  let state: State = "new";
  let expectedSignature: Uint8Array | undefined;

  async function clientFinal(message: string): Promise<Uint8Array> {
    const { serverNonce, salt, iterations } = readServerFirst(message, nonce, least, most);
    const binding = plus ? joined(utf8(gs2Header), channelBinding!.data) : utf8(gs2Header);
    const withoutProof = `c=${toBase64(binding)},r=${serverNonce}`;
    const authMessage = `${clientFirstBare},${message},${withoutProof}`;

    const key = await salted(hash, password, salt, iterations);
    const client = clientKey(hash, key);
    const proof = xor(client, hmac(hash, digest(hash, client), authMessage));
    expectedSignature = hmac(hash, serverKey(hash, key), authMessage);
    return utf8(`${withoutProof},p=${toBase64(proof)}`);
  }

  return {
    name,
    start() {
      if (state !== "new") throw new SaslError("out-of-order", `${name} has begun already`);
      state = "server-first";
      return utf8(gs2Header + clientFirstBare);
    },
    async step(challenge) {
      const due = state;
      // Set before anything can throw or be called again: a login that failed stays failed.
      state = due === "server-first" ? "computing" : "failed";
      if (due === "server-first") {
        try {
          const response = await clientFinal(fromUtf8(challenge));
          // A message that came while this one was computed has ended the login.
          if ((state as State) !== "computing") throw notDue(name);
          state = "server-final";
          return response;
        } catch (error) {
          state = "failed";
          throw error;
        }
      }
      if (due === "server-final") {
        verifyServerFinal(fromUtf8(challenge), expectedSignature!);
        state = "done";
        return new Uint8Array(0);
      }
      throw notDue(name);
    },
    done: () => state === "done",
  };
}

const notDue = (name: ScramName): SaslError =>
  new SaslError("out-of-order", `no message of the server is due in ${name} now`);

function readServerFirst(message: string, nonce: string, least: number, most: number): {
  readonly serverNonce: string;
  readonly salt: Uint8Array;
  readonly iterations: number;
} {
  refuseServerError(message);
  if (message.startsWith("m=")) {
    throw new SaslError("extension", "the server asks for a SCRAM extension that must be known");
  }
  // Optional extensions may follow: they are under the signature, and mean nothing to us.
  const [r, s, i] = attributes(message);
  if (r?.name !== "r" || s?.name !== "s" || i?.name !== "i") {
    throw new SaslError("malformed", "the server's first SCRAM message lacks nonce, salt or count");
  }
  if (!isNonce(r.value)) {
    throw new SaslError("malformed", "the server's nonce is too long or not printable ASCII");
  }
  if (!r.value.startsWith(nonce) || r.value.length === nonce.length) {
    throw new SaslError("nonce", "the server's nonce does not extend ours");
  }
  const salt = fromBase64(s.value);
  if (salt.length === 0 || salt.length > MAX_SALT) {
    throw new SaslError("malformed", `the server's salt is not of 1 to ${MAX_SALT} octets`);
  }
  if (!/^[1-9]\d*$/.test(i.value)) {
    throw new SaslError("malformed", "the server's iteration count is not a positive number");
  }
  const iterations = Number(i.value);
  if (iterations < least || iterations > most) {
    throw new SaslError(
      "iterations",
      iterations < least
        ? `the server asks for fewer than ${least} iterations, too few to protect the password`
        : `the server asks for more than ${most} iterations, more than will be computed`,
    );
  }
  return { serverNonce: r.value, salt, iterations };
}

/**
 * Extensions are refused here, though the grammar has them: no signature covers this message.
 */
function verifyServerFinal(message: string, expected: Uint8Array): void {
  refuseServerError(message);
  const [v, ...more] = attributes(message);
  if (v?.name !== "v" || more.length > 0) {
    throw new SaslError("malformed", "the server's last SCRAM message is not a signature");
  }
  if (!sameOctets(fromBase64(v.value), expected)) {
    throw new SaslError(
      "signature",
      "the server's signature is wrong: it does not know the password, or messages were altered",
    );
  }
}

function refuseServerError(message: string): void {
  if (!message.startsWith("e=")) return;
  const error = message.slice(2).split(",", 1)[0]!;
  throw new SaslError(
    "refused",
    `the server refuses the login: ${SERVER_ERRORS.has(error) ? error : "other-error"}`,
  );
}
