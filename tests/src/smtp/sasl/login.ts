/**
 * Runs a client's mechanism against a server's, with somebody in between who may alter messages.
 */
import { createHash } from "node:crypto";
import { type Accounts, accounts } from "../../../../src/smtp/sasl/accounts.ts";
import { type CredentialCost, deriveCredentials } from "../../../../src/smtp/sasl/credentials.ts";
import type {
  ClientMechanism,
  RandomBytes,
  ServerMechanism,
  ServerStep,
} from "../../../../src/smtp/sasl/mechanism.ts";

/** As cheap as the bounds allow. */
export const CHEAP: CredentialCost = { iterations: 4096, scrypt: { ln: 4, r: 1, p: 1 } };
export const SECRET = new Uint8Array(32).fill(7);

/** The same octets each time for the same seed, different ones in a row. */
export function seeded(seed: string): RandomBytes {
  let drawn = 0;
  return (length) =>
    new Uint8Array(createHash("sha512").update(`${seed} ${drawn++}`).digest().subarray(0, length));
}

/** Accounts with these passwords. */
export async function accountsWith(passwords: Readonly<Record<string, string>>): Promise<Accounts> {
  const random = seeded("accounts");
  const stored = new Map(
    await Promise.all(
      Object.entries(passwords).map(async ([name, password]) =>
        [name, await deriveCredentials(password, random, CHEAP)] as const
      ),
    ),
  );
  return accounts((name) => stored.get(name), SECRET, CHEAP);
}

/** Gets each message with its number, from 0; returns what is delivered in its place. */
export type Between = (from: "client" | "server", number: number, data: Uint8Array) => Uint8Array;

export interface Ending {
  /** What the client threw, if it did. */
  readonly clientError?: unknown;
  readonly clientDone: boolean;
  /** The server's last word. */
  readonly server: ServerStep;
}

export async function login(
  client: ClientMechanism,
  server: ServerMechanism,
  between: Between = (_from, _number, data) => data,
): Promise<Ending> {
  let message = client.start() ?? new Uint8Array(0);
  for (let number = 0;; number++) {
    const step = await server.step(between("client", number, message));
    if (step.kind !== "challenge") return { clientDone: client.done(), server: step };
    try {
      message = await client.step(between("server", number, step.data));
    } catch (clientError) {
      return { clientError, clientDone: client.done(), server: step };
    }
  }
}
