/** Accounts for tests of submission: a gate over accounts in memory, with passwords that are cheap. */
import { Buffer } from "node:buffer";
import type { Clock, Log } from "../../../actors/ports.ts";
import { parseAddressPattern } from "../../../src/accounts/address_pattern.ts";
import { Allowance, type BucketUse } from "../../../src/accounts/allowance.ts";
import { AccountGate } from "../../../src/accounts/gate.ts";
import type { AccountConfig } from "../../../src/config/types.ts";
import { type CredentialCost, deriveCredentials } from "../../../src/smtp/sasl/credentials.ts";
import { realClock } from "./fakes.ts";

export const CHEAP: CredentialCost = { iterations: 4096, scrypt: { ln: 4, r: 1, p: 1 } };
export const PASSWORD = "correct horse battery";

let drawn = 0;
const random = (length: number) => new Uint8Array(length).fill(drawn++ % 251);

export async function account(
  name: string,
  addresses: readonly string[],
  more: Partial<AccountConfig> = {},
): Promise<AccountConfig> {
  return {
    name,
    addresses: addresses.map((text) => parseAddressPattern(text)!),
    credentials: await deriveCredentials(PASSWORD, random, CHEAP),
    checkHeaderFrom: true,
    nullSender: false,
    limits: {
      messagesPerHour: 1_000,
      messagesPerDay: 1_000,
      recipientsPerHour: 1_000,
      recipientsPerDay: 1_000,
    },
    ...more,
  };
}

export interface GateOptions {
  readonly clock?: Clock;
  readonly log?: Log;
  readonly used?: readonly BucketUse[];
  /** Thrown by every lookup, when set. */
  readonly failWith?: () => Error | undefined;
}

const silent: Log = { info() {}, warn() {}, error() {} };

/** A gate over a list that may change while it is used. */
export function gateOver(accounts: AccountConfig[], options: GateOptions = {}): AccountGate {
  const { clock = realClock, log = silent, used = [] } = options;
  return new AccountGate({
    clock,
    log,
    accounts: {
      find(login) {
        const error = options.failWith?.();
        if (error) throw error;
        return accounts.find(({ name }) => name === login);
      },
      get: (name) => accounts.find((one) => one.name === name),
    },
    allowance: new Allowance(clock, () => Promise.resolve([...used])),
    secret: new Uint8Array(32).fill(7),
    cost: CHEAP,
  });
}

export const base64 = (text: string): string => Buffer.from(text).toString("base64");

/** The initial response of PLAIN. */
export const plain = (name: string, password = PASSWORD, authzid = ""): string =>
  base64(`${authzid}\0${name}\0${password}`);
