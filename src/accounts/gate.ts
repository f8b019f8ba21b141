/**
 * AccountGate: everything about accounts that a way into the queue asks: who logs in, what that
 * account may say it is, and how much it may send. One for the whole process, so that limits and
 * failed logins count over all listeners.
 */
import { randomBytes } from "node:crypto";
import type { Clock, Log } from "../../actors/ports.ts";
import type { AccountConfig } from "../config/types.ts";
import { type Accounts, accounts as saslAccounts } from "../smtp/sasl/accounts.ts";
import type { CredentialCost } from "../smtp/sasl/credentials.ts";
import type { RandomBytes } from "../smtp/sasl/mechanism.ts";
import type { Mailbox } from "../smtp/address.ts";
import { Refusal } from "../submission/refusal.ts";
import { matchesAddress } from "./address_pattern.ts";
import type { Allowance, Reached } from "./allowance.ts";
import { authorsOf, BadAuthor } from "./header_from.ts";
import { LoginThrottle } from "./throttle.ts";

/** How a login ended. */
export type LoginResult = "ok" | "failed" | "malformed" | "cancelled" | "refused" | "error";

/** Where accounts come from; AccountDirectory is one. */
export interface AccountSource {
  /** By what a client logs in with. */
  find(login: string): AccountConfig | undefined;
  get(name: string): AccountConfig | undefined;
}

export interface GatePorts {
  readonly clock: Clock;
  readonly log: Log;
  readonly accounts: AccountSource;
  readonly allowance: Allowance;
  /** See `accounts` in src/smtp/sasl/accounts.ts. */
  readonly secret: Uint8Array;
  readonly random?: RandomBytes;
  readonly cost?: CredentialCost;
}

export class AccountGate {
  readonly throttle: LoginThrottle;
  /** For the mechanisms of SASL. */
  readonly sasl: Accounts;
  readonly random: RandomBytes;
  readonly #ports: GatePorts;
  readonly #logins = new Map<string, number>();
  readonly #limited = new Map<string, number>();

  constructor(ports: GatePorts) {
    this.#ports = ports;
    this.throttle = new LoginThrottle(ports.clock);
    this.random = ports.random ?? ((length) => new Uint8Array(randomBytes(length)));
    this.sasl = saslAccounts(
      (login) => ports.accounts.find(login)?.credentials,
      ports.secret,
      ports.cost,
    );
  }

  /** The account behind a login that has succeeded. */
  accountOf(login: string): AccountConfig | undefined {
    return this.#ports.accounts.find(login);
  }

  /** The account as it is configured now; undefined when it is gone or cannot log in any more. */
  current(name: string): AccountConfig | undefined {
    const account = this.#ports.accounts.get(name);
    return account?.credentials && account;
  }

  /** @param mechanism of the few that are offered, or "unknown" */
  countLogin(mechanism: string, result: LoginResult): void {
    count(this.#logins, `${mechanism} ${result}`);
  }

  /** Logins so far, by mechanism and result. */
  logins(): { readonly labels: { mechanism: string; result: string }; readonly count: number }[] {
    return Array.from(this.#logins, ([key, count]) => {
      const [mechanism = "", result = ""] = key.split(" ");
      return { labels: { mechanism, result }, count };
    });
  }

  /** Messages and recipients turned away because of a limit, by the limit: `messages_per_hour`. */
  limited(): Readonly<Record<string, number>> {
    return Object.fromEntries(this.#limited);
  }

  /**
   * Whether an account may use the envelope sender.
   * @param mailbox null for the null reverse-path
   * @throws Refusal
   */
  checkSender(account: AccountConfig, mailbox: Mailbox | null): void {
    if (mailbox === null ? account.nullSender : mayUse(account, mailbox)) return;
    const what = mailbox === null ? "the null reverse-path" : "that sender address";
    throw new Refusal(553, "5.7.1", `this account may not use ${what}`);
  }

  /** What stands against a message's header; undefined when nothing does. */
  checkHeader(account: AccountConfig, header: Uint8Array): Refusal | undefined {
    if (!account.checkHeaderFrom) return undefined;
    try {
      if (authorsOf(header).every((author) => mayUse(account, author))) return undefined;
    } catch (error) {
      if (!(error instanceof BadAuthor)) throw error;
      return new Refusal(
        550,
        "5.7.1",
        `${error.message}; the account's address has to stand there`,
      );
    }
    return new Refusal(550, "5.7.1", "this account may not use the address in the From field");
  }

  /**
   * @param recipients of the message so far
   * @throws Refusal when the account's limits have no room for it
   * @throws StoreUnavailable
   */
  async checkAllowance(account: AccountConfig, recipients: number): Promise<void> {
    const { allowance } = this.#ports;
    const reached = await allowance.check(account.name, account.limits, recipients);
    if (reached) throw this.#limit(account, reached);
  }

  /**
   * Counts a message against the account's limits; returns the way to take that back.
   * @throws Refusal when there is no room for it
   * @throws StoreUnavailable
   */
  async takeAllowance(account: AccountConfig, recipients: number): Promise<() => void> {
    const { allowance } = this.#ports;
    const taken = await allowance.take(account.name, account.limits, recipients);
    if ("giveBack" in taken) return taken.giveBack;
    throw this.#limit(account, taken);
  }

  #limit({ name }: AccountConfig, { what, per, limit }: Reached): Refusal {
    count(this.#limited, `${what}_per_${per}`);
    this.#ports.log.warn("an account has reached a limit", { account: name, what, per, limit });
    return new Refusal(
      450,
      "4.7.1",
      `the account's limit of ${limit} ${what} per ${per} is reached; try again later`,
    );
  }
}

function count(map: Map<string, number>, key: string): void {
  map.set(key, (map.get(key) ?? 0) + 1);
}

/** Whether one of the account's addresses is meant. */
const mayUse = ({ addresses }: AccountConfig, mailbox: Mailbox): boolean =>
  addresses.some((pattern) => matchesAddress(pattern, mailbox));
