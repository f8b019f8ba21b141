/**
 * The server's mechanism by its name, and which of them a session is offered.
 */
import type { Accounts } from "./accounts.ts";
import type {
  ChannelBinding,
  RandomBytes,
  ServerMechanism,
  ServerMechanismName,
} from "./mechanism.ts";
import { plainServer } from "./plain_server.ts";
import { scramServer } from "./scram_server.ts";

export interface ServerOptions {
  readonly accounts: Accounts;
  readonly random: RandomBytes;
  /** Of the TLS session; empty or absent: -PLUS is not offered. */
  readonly channelBindings?: readonly ChannelBinding[];
}

/**
 * What AUTH lists in the reply to EHLO, over TLS. Without TLS nothing is to be offered where
 * somebody could listen: what comes after the login is mail in the clear.
 */
export function offeredMechanisms(options: Pick<ServerOptions, "channelBindings">) {
  const names: readonly ServerMechanismName[] = ["SCRAM-SHA-256", "SCRAM-SHA-1", "PLAIN"];
  return options.channelBindings?.length
    ? (["SCRAM-SHA-256-PLUS", "SCRAM-SHA-1-PLUS", ...names] as const)
    : names;
}

/** A login by the mechanism that the client names; undefined when it was not offered (504). */
export function serverMechanism(name: string, options: ServerOptions): ServerMechanism | undefined {
  const offered = offeredMechanisms(options).find((one) => one === name);
  if (offered === undefined) return undefined;
  if (offered === "PLAIN") return plainServer(options.accounts);
  const offersPlus = (options.channelBindings?.length ?? 0) > 0;
  return scramServer({ ...options, name: offered, offersPlus });
}
