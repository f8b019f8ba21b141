/**
 * The server's side of SCRAM (RFC 5802; SHA-256: RFC 7677; channel binding: RFC 5929, RFC 9266).
 *
 * It needs no password, only the stored keys, and computes nothing slow: an unknown user takes
 * the same few HMACs as a known one, and fails at the same place, as a wrong password does.
 * In SMTP the last message is a challenge that the client answers with an empty line.
 */
import type { Accounts, Found } from "./accounts.ts";
import { failureReason, SaslError } from "./error.ts";
import type { ChannelBinding, RandomBytes, ServerMechanism, ServerStep } from "./mechanism.ts";
import { fromBase64, fromUtf8, joined, sameOctets, toBase64, utf8 } from "./octets.ts";
import { prepared } from "./prepare.ts";
import {
  attributes,
  digest,
  hmac,
  isNonce,
  type ScramHash,
  scramHash,
  type ScramName,
  unescapeName,
  xor,
} from "./scram.ts";

export interface ScramServerOptions {
  readonly name: ScramName;
  readonly accounts: Accounts;
  readonly random: RandomBytes;
  /** Of this TLS session, for -PLUS: the client takes one of them. */
  readonly channelBindings?: readonly ChannelBinding[];
  /**
   * This listener offers -PLUS on this session: a client that says it was not offered has been
   * deceived (RFC 5802, section 6).
   */
  readonly offersPlus?: boolean;
}

const NONCE_OCTETS = 24;

interface First {
  readonly username: string;
  readonly found: Found;
  readonly nonce: string;
  /** What the client must repeat in `c`. */
  readonly binding: string;
  /** Client's and server's first message as they go into the signature. */
  readonly messages: string;
}

export function scramServer(options: ScramServerOptions): ServerMechanism {
  const { name } = options;
  const hash = scramHash(name);
  let due: "first" | "final" | "empty" | "nothing" = "first";
  let first: First | undefined;

  async function take(response: Uint8Array): Promise<ServerStep> {
    const stage = due;
    // Until this message is dealt with no other is due, and none after one that fails.
    due = "nothing";
    switch (stage) {
      case "first": {
        const read = readClientFirst(fromUtf8(response), options);
        const found = await options.accounts.find(read.username);
        const keys = found.credentials[hash === "sha256" ? "scram-sha-256" : "scram-sha-1"];
        const nonce = read.nonce + toBase64(options.random(NONCE_OCTETS));
        const message = `r=${nonce},s=${toBase64(keys.salt)},i=${keys.iterations}`;
        first = { ...read, found, nonce, messages: `${read.bare},${message}` };
        due = "final";
        return { kind: "challenge", data: utf8(message) };
      }
      case "final": {
        const signature = verifyClientFinal(fromUtf8(response), first!, hash);
        if (signature === undefined) {
          const { username, found } = first!;
          const detail = found.known ? "wrong password" : "no such account";
          return { kind: "failure", reason: "credentials", username, detail };
        }
        due = "empty";
        return { kind: "challenge", data: utf8(`v=${toBase64(signature)}`) };
      }
      case "empty":
        if (response.length > 0) throw new SaslError("malformed", "an answer that is not empty");
        return { kind: "success", username: first!.username };
      case "nothing":
        throw new SaslError("out-of-order", "a message after the end");
    }
  }

  return {
    name,
    async step(response) {
      try {
        return await take(response);
      } catch (error) {
        if (!(error instanceof SaslError)) throw error;
        return {
          kind: "failure",
          reason: failureReason(error),
          ...(first && { username: first.username }),
          detail: error.message,
        };
      }
    },
  };
}

function readClientFirst(message: string, options: ScramServerOptions): {
  readonly username: string;
  readonly nonce: string;
  readonly binding: string;
  readonly bare: string;
} {
  const match = /^(?:([ny])|p=([A-Za-z0-9.-]+)),(?:a=([^,]+))?,/.exec(message);
  if (!match) throw new SaslError("malformed", "the client's first message has no GS2 header");
  const [header, flag, bindingType, authzid] = match;
  const bare = message.slice(header.length);
  if (bare.startsWith("m=")) {
    throw new SaslError("extension", "the client asks for a SCRAM extension that must be known");
  }
  const [n, r] = attributes(bare);
  if (n?.name !== "n" || r?.name !== "r" || !isNonce(r.value)) {
    throw new SaslError("malformed", "the client's first message lacks user name or nonce");
  }
  const username = prepared(unescapeName(n.value), "the user name", "query");
  if (authzid !== undefined) {
    const other = prepared(unescapeName(authzid), "the authorization identity", "query");
    if (other !== username) throw new SaslError("credentials", "asks for another's name");
  }
  return {
    username,
    nonce: r.value,
    binding: toBase64(joined(utf8(header), bindingData(flag, bindingType, options))),
    bare,
  };
}

function bindingData(
  flag: string | undefined,
  type: string | undefined,
  { name, channelBindings = [], offersPlus }: ScramServerOptions,
): Uint8Array {
  if (name.endsWith("-PLUS")) {
    const binding = channelBindings.find((one) => one.type === type);
    if (binding) return binding.data;
    throw new SaslError("binding", `${name} without a channel binding that is had here`);
  }
  if (type !== undefined) throw new SaslError("malformed", `${name} with channel binding`);
  if (flag === "y" && offersPlus) {
    throw new SaslError(
      "binding",
      "the client was not offered channel binding, and we offer it: our offer was tampered with",
    );
  }
  return new Uint8Array(0);
}

/** The server's signature; undefined when the proof is wrong. */
function verifyClientFinal(
  message: string,
  { found, nonce, binding, messages }: First,
  hash: ScramHash,
): Uint8Array | undefined {
  const list = attributes(message);
  const [c, r] = list;
  const p = list.at(-1)!;
  if (c?.name !== "c" || r?.name !== "r" || p.name !== "p" || list.some((a) => a.name === "m")) {
    throw new SaslError("malformed", "the client's last message is not one of SCRAM");
  }
  if (c.value !== binding) {
    throw new SaslError("binding", "the channel binding is not that of this session");
  }
  if (r.value !== nonce) throw new SaslError("nonce", "the nonce is not that of this login");

  const keys = found.credentials[hash === "sha256" ? "scram-sha-256" : "scram-sha-1"];
  const authMessage = `${messages},${message.slice(0, message.lastIndexOf(",p="))}`;
  const signature = hmac(hash, keys.storedKey, authMessage);
  const proof = fromBase64(p.value);
  if (proof.length !== signature.length) {
    throw new SaslError("malformed", "the proof has the wrong length");
  }
  const right = sameOctets(digest(hash, xor(proof, signature)), keys.storedKey);
  const serverSignature = hmac(hash, keys.serverKey, authMessage);
  return right && found.known ? serverSignature : undefined;
}
