/**
 * The client's login over SMTP: the chosen mechanism with its credentials, and its exchange in
 * lines (RFC 4954). The SMTP client sends the lines and hands back what replies say.
 */
import { cramMd5Client } from "./cram_md5.ts";
import { SaslError } from "./error.ts";
import { authCommand, decodeChallenge, encodeLine } from "./framing.ts";
import type { ChannelBinding, ClientMechanism, MechanismName, RandomBytes } from "./mechanism.ts";
import { type BearerCredentials, oauthBearerClient, xoauth2Client } from "./oauth.ts";
import { loginClient, plainClient } from "./plain.ts";
import type { SaltedPassword } from "./scram.ts";
import { scramClient } from "./scram_client.ts";

export type ClientCredentials =
  | {
    readonly kind: "password";
    readonly username: string;
    readonly password: string;
    /** On whose behalf, where that is somebody else; CRAM-MD5 and LOGIN cannot say it. */
    readonly authzid?: string;
  }
  | ({ readonly kind: "token" } & BearerCredentials);

export interface ClientOptions {
  readonly random: RandomBytes;
  /** Required for -PLUS. */
  readonly channelBinding?: ChannelBinding;
  /** From the choice (choose.ts). */
  readonly bindingNotOffered?: boolean;
  readonly minIterations?: number;
  readonly maxIterations?: number;
  /** For example `remembering()` (scram.ts), kept as long as the credentials. */
  readonly saltedPassword?: SaltedPassword;
}

/**
 * @throws SaslError `credentials` when the mechanism cannot carry them
 * @throws Error when mechanism and kind of credentials do not go together: a fault of the caller
 */
export function clientMechanism(
  name: MechanismName,
  credentials: ClientCredentials,
  options: ClientOptions,
): ClientMechanism {
  if (name === "OAUTHBEARER" || name === "XOAUTH2") {
    if (credentials.kind !== "token") throw new Error(`${name} needs a token`);
    return name === "XOAUTH2" ? xoauth2Client(credentials) : oauthBearerClient(credentials);
  }
  if (credentials.kind !== "password") throw new Error(`${name} needs a password`);
  const { username, password, authzid } = credentials;
  if (name === "PLAIN") return plainClient(username, password, authzid);
  if (authzid !== undefined && (name === "LOGIN" || name === "CRAM-MD5")) {
    throw new SaslError("credentials", `${name} cannot log in on somebody else's behalf`);
  }
  if (name === "LOGIN") return loginClient(username, password);
  if (name === "CRAM-MD5") return cramMd5Client(username, password);
  return scramClient({ ...options, name, username, password, authzid });
}

/**
 * One login in lines:
 *
 * 1. send `command()`
 * 2. for every reply 334 send `answer(text)`; when that throws, send "*" and read the reply
 *    (RFC 4954, section 4), then report what was thrown
 * 3. on 235 call `succeed()`; when that throws, the server must not be trusted with mail
 * 4. on any other reply the login has failed; `refusal` may say why
 */
export class ClientExchange {
  readonly #mechanism: ClientMechanism;
  #held: Uint8Array | undefined;

  constructor(mechanism: ClientMechanism) {
    this.#mechanism = mechanism;
  }

  /** The AUTH command, without CRLF. Holds secrets: not for transcripts. */
  command(): string {
    const { command, held } = authCommand(this.#mechanism.name, this.#mechanism.start());
    this.#held = held;
    return command;
  }

  /**
   * The response to a challenge, without CRLF. Holds secrets: not for transcripts.
   * @param text of the reply 334
   * @throws SaslError
   */
  async answer(text: string): Promise<string> {
    const challenge = decodeChallenge(text);
    const held = this.#held;
    if (held === undefined) return encodeLine(await this.#mechanism.step(challenge));
    this.#held = undefined;
    if (challenge.length > 0) {
      throw new SaslError("malformed", "the server sent a challenge where the client speaks first");
    }
    return encodeLine(held);
  }

  /**
   * To be called on success.
   * @throws SaslError `out-of-order` when the server says so before it may
   */
  succeed(): void {
    if (this.#held !== undefined || !this.#mechanism.done()) {
      throw new SaslError(
        "out-of-order",
        `the server reports success before ${this.#mechanism.name} is through: ` +
          "it has not proved that it is the server it claims to be",
      );
    }
  }

  get refusal(): string | undefined {
    return this.#mechanism.refusal;
  }
}
