/**
 * Both sides of SCRAM with everything filled in, for tests that change one thing.
 */
import type { ChannelBinding } from "../../../../src/smtp/sasl/mechanism.ts";
import { SaslError, type SaslReason } from "../../../../src/smtp/sasl/error.ts";
import { remembering, type ScramName } from "../../../../src/smtp/sasl/scram.ts";
import { scramClient, type ScramClientOptions } from "../../../../src/smtp/sasl/scram_client.ts";
import { scramServer, type ScramServerOptions } from "../../../../src/smtp/sasl/scram_server.ts";
import { accountsWith, seeded } from "./login.ts";

export const NAMES: readonly ScramName[] = [
  "SCRAM-SHA-256",
  "SCRAM-SHA-256-PLUS",
  "SCRAM-SHA-1",
  "SCRAM-SHA-1-PLUS",
];
export const BINDING: ChannelBinding = { type: "tls-exporter", data: new Uint8Array(32).fill(3) };
export const ACCOUNTS = await accountsWith({
  "us,er=": "pencil",
  user: "pencil",
  pässwörd: "\u2168\u00ADx",
});
export const remembered = remembering();

export const client = (options: Partial<ScramClientOptions> = {}) =>
  scramClient({
    name: "SCRAM-SHA-256",
    username: "user",
    password: "pencil",
    channelBinding: BINDING,
    random: seeded("client"),
    saltedPassword: remembered,
    maxIterations: 20_000,
    ...options,
  });

export const server = (options: Partial<ScramServerOptions> = {}) =>
  scramServer({
    name: "SCRAM-SHA-256",
    accounts: ACCOUNTS,
    random: seeded("server"),
    channelBindings: [{ type: "tls-server-end-point", data: new Uint8Array(32) }, BINDING],
    ...options,
  });

export const fails = (reason: SaslReason) => (error: unknown) =>
  error instanceof SaslError && error.reason === reason && !error.message.includes("pencil");
