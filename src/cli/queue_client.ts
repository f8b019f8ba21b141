/** What commands share that ask the running queue: where it is, who asks, and why. */
import { type ApiClient, connect } from "../api_client.ts";
import { DATA_OPTIONS, JSON_OPTION, type Parsed } from "./command.ts";
import { configOf, DEFAULT_DATA } from "./data.ts";

export const REASON_OPTION = {
  reason: { value: "TEXT", about: "why, for the log of each message" },
} as const;

/** Options of every command that asks the running queue. */
export const CLIENT_OPTIONS = { ...REASON_OPTION, ...JSON_OPTION, ...DATA_OPTIONS } as const;

/** @throws ApiError, ConfigError */
export function clientOf(parsed: Parsed): Promise<ApiClient> {
  return connect(parsed.value("data") ?? configOf(parsed)?.dataDir ?? DEFAULT_DATA, person());
}

/** The person at the keyboard, also behind sudo. */
function person(): string | undefined {
  for (const name of ["SUDO_USER", "USER", "LOGNAME"]) {
    const value = Deno.env.get(name);
    if (value) return value;
  }
  return undefined;
}

export const reasonOf = (parsed: Parsed): { readonly reason?: string } => {
  const reason = parsed.value("reason");
  return reason === undefined ? {} : { reason };
};
