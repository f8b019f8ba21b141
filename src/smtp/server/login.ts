/**
 * Login: AUTH in one session (RFC 4954). The mechanisms are those of src/smtp/sasl; what a login
 * may cost whoever guesses is for src/accounts/throttle.ts to say.
 *
 *   client  AUTH mechanism [initial response]
 *   server  334 challenge ⇄ response, or "*" to give up
 *   server  235, or 535 as much for an unknown name as for a wrong password
 */
import { Refusal } from "../../submission/refusal.ts";
import type { AccountGate, LoginResult } from "../../accounts/gate.ts";
import type { Attempt } from "../../accounts/throttle.ts";
import type { AccountConfig } from "../../config/types.ts";
import { SaslError } from "../sasl/error.ts";
import { decodeResponse, encodeLine, MAX_AUTH_LINE, parseAuthArguments } from "../sasl/framing.ts";
import type { ServerMechanism, ServerStep } from "../sasl/mechanism.ts";
import { offeredMechanisms, serverMechanism } from "../sasl/server.ts";
import type { Connection } from "./connection.ts";
import type { InputLine } from "./input.ts";
import { type Listener, SessionOver } from "./listener.ts";

/** Sends a reply and waits for the next line, of so many octets at most, CRLF included. */
export type Ask = (reply: string, longest: number) => Promise<InputLine>;

/** Too many failures came from where the client is. */
class TooManyFailures {
  constructor(readonly minutes: number) {}
}

export class Login {
  readonly #listener: Listener;
  readonly #connection: Connection;
  #login: { readonly name: string; readonly account: string } | undefined;

  constructor(listener: Listener, connection: Connection) {
    this.#listener = listener;
    this.#connection = connection;
  }

  /** What the client has logged in with. */
  get name(): string | undefined {
    return this.#login?.name;
  }

  /**
   * The account that mail is submitted for; undefined where listeners take mail from anybody.
   * @param tls whether the session is in TLS
   * @throws Refusal when a login is needed and there is none
   */
  account(tls: boolean): AccountConfig | undefined {
    const { gate } = this.#listener;
    if (!gate) return undefined;
    const account = this.#login && gate.current(this.#login.account);
    if (account) return account;
    this.#login = undefined; // it may have been there, and was taken away meanwhile
    const first = this.mechanisms(tls).length === 0 ? "; STARTTLS comes first" : "";
    throw new Refusal(530, "5.7.0", `mail takes a login${first}`);
  }

  /** What the reply to EHLO offers. PLAIN shows the password to whoever can read the session. */
  mechanisms(tls: boolean): readonly string[] {
    if (!this.#listener.gate || this.#login) return [];
    const all = offeredMechanisms({});
    if (tls) return all;
    return this.#listener.loopback ? all.filter((name) => name !== "PLAIN") : [];
  }

  /**
   * Runs the command.
   * @throws Refusal when nobody is logged in behind it
   */
  async run(rest: string, tls: boolean, ask: Ask): Promise<void> {
    const { gate } = this.#listener;
    if (!gate) throw new Refusal(502, "5.5.1", "AUTH is not offered");
    if (this.#login) throw new Refusal(503, "5.5.1", "there was a login already");
    const offered = this.mechanisms(tls);
    if (offered.length === 0) throw new Refusal(530, "5.7.0", "STARTTLS comes first");
    const { mechanism: name, initial } = asRefusal(() => parseAuthArguments(rest));
    let attempt: Attempt | undefined;
    const mechanism = offered.includes(name)
      ? serverMechanism(name, {
        random: gate.random,
        accounts: {
          find: async (username) => {
            attempt = gate.throttle.begin(this.#connection.peer.address, username);
            await this.#admit(attempt);
            return await gate.sasl.find(username);
          },
        },
      })
      : undefined;
    if (!mechanism) {
      gate.countLogin("unknown", "malformed");
      throw new Refusal(504, "5.5.4", "that mechanism is not offered");
    }
    try {
      const step = await this.#exchange(mechanism, initial, ask);
      if (step.kind === "failure") throw this.#failed(gate, mechanism, step, attempt);
      attempt?.succeeded();
      const account = gate.accountOf(step.username);
      if (!account) throw new Refusal(454, "4.7.0", "the account is gone"); // taken away meanwhile
      this.#login = { name: step.username, account: account.name };
      gate.countLogin(name, "ok");
    } catch (error) {
      throw this.#ended(gate, name, error);
    } finally {
      attempt?.withdrawn();
    }
  }

  async #exchange(
    mechanism: ServerMechanism,
    initial: Uint8Array | undefined,
    ask: Ask,
  ): Promise<Exclude<ServerStep, { kind: "challenge" }>> {
    let response = initial ?? await this.#response("334 ", ask);
    for (;;) {
      const step = await mechanism.step(response);
      if (step.kind !== "challenge") return step;
      response = await this.#response(`334 ${encodeLine(step.data)}`, ask);
    }
  }

  async #response(challenge: string, ask: Ask): Promise<Uint8Array> {
    const line = await ask(challenge, MAX_AUTH_LINE + 2);
    if ("fault" in line) {
      if (line.fault === "too long") {
        throw new Refusal(500, "5.5.6", "the line is too long; the login is over");
      }
      if (line.fault === "bare LF" || line.fault === "flood") {
        throw new SessionOver("500 5.5.2 lines end with CRLF, closing");
      }
      throw new Refusal(501, "5.5.2", "the line is not base64; the login is over");
    }
    const response = asRefusal(() => decodeResponse(line.text));
    if (response.kind === "cancelled") throw new Cancelled();
    return response.data;
  }

  /** Waits as long as failures before have earned. */
  async #admit(attempt: Attempt): Promise<void> {
    if (attempt.wait > 0) {
      const why = await this.#connection.pause(attempt.wait);
      if (why === "closed") throw new SessionOver();
      if (why === "interrupted") throw new SessionOver("421 4.3.2 shutting down, closing");
    }
    const refused = attempt.refused();
    if (refused !== undefined) throw new TooManyFailures(Math.ceil(refused / 60_000));
  }

  #failed(
    gate: AccountGate,
    mechanism: ServerMechanism,
    step: Extract<ServerStep, { kind: "failure" }>,
    attempt: Attempt | undefined,
  ): Refusal {
    attempt?.failed();
    const { username, detail, reason } = step;
    this.#listener.log.warn("login failed", {
      listener: this.#listener.name,
      peer: this.#connection.peer.address,
      mechanism: mechanism.name,
      // Passwords are typed where names belong: a name that is not known is not written down.
      account: username === undefined ? undefined : gate.accountOf(username)?.name,
      why: detail,
    });
    return reason === "malformed"
      ? new Refusal(501, "5.5.2", "that is not a message of the mechanism")
      : new Refusal(535, "5.7.8", "name or password is wrong");
  }

  /** Counts how a login ended, and says it in SMTP. */
  #ended(gate: AccountGate, mechanism: string, error: unknown): unknown {
    const count = (result: LoginResult) => gate.countLogin(mechanism, result);
    if (error instanceof Cancelled) {
      count("cancelled");
      return new Refusal(501, "5.7.0", "the login is given up");
    }
    if (error instanceof TooManyFailures) {
      count("refused");
      const { minutes } = error;
      this.#listener.log.warn("login refused after too many failures", {
        listener: this.#listener.name,
        peer: this.#connection.peer.address,
        minutes,
      });
      return new SessionOver(
        "421 4.7.0 too many failed logins from your address; " +
          `try again in ${minutes} ${minutes === 1 ? "minute" : "minutes"}, closing`,
      );
    }
    if (error instanceof Refusal) {
      count(error.code === 535 ? "failed" : error.code === 454 ? "error" : "malformed");
      return error;
    }
    if (error instanceof SessionOver) {
      count("cancelled");
      return error;
    }
    count("error");
    const why = error instanceof Error ? error.stack ?? error.message : String(error);
    this.#listener.log.error("a fault in a login", { listener: this.#listener.name, why });
    return new Refusal(454, "4.7.0", "logins fail for a reason of our own; try again later");
  }
}

/** The client sent "*". */
class Cancelled {}

/** RFC 4954, section 4: what is not base64, or no AUTH command, is met with 501. */
function asRefusal<T>(read: () => T): T {
  try {
    return read();
  } catch (error) {
    if (!(error instanceof SaslError)) throw error;
    if (error.reason === "too-long") throw new Refusal(500, "5.5.6", error.message);
    throw new Refusal(501, error.reason === "bad-base64" ? "5.5.2" : "5.5.4", error.message);
  }
}
