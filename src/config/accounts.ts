/**
 * Accounts as they stand in a config, and in the file of the data folder that `account add`
 * writes: the same settings, checked in the same way.
 */
import { z } from "zod";
import { type AddressPattern, loginOf, parseAddressPattern } from "../accounts/address_pattern.ts";
import { parseCredentials, type StoredCredentials } from "../smtp/sasl/credentials.ts";
import { SaslError } from "../smtp/sasl/error.ts";
import { prepared } from "../smtp/sasl/prepare.ts";
import { type Path, type Problem } from "./problems.ts";
import type { AccountConfig } from "./types.ts";

const Address = z.string().transform((text, context): AddressPattern => {
  const pattern = parseAddressPattern(text);
  if (pattern) return pattern;
  context.addIssue({
    code: "custom",
    message:
      'is not an address; write "alice@example.com", or "@example.com" for all of the domain',
  });
  return z.NEVER;
});

const Credentials = z.string().transform((line, context): StoredCredentials => {
  try {
    return parseCredentials(line);
  } catch (error) {
    if (!(error instanceof SaslError)) throw error;
    context.addIssue({
      code: "custom",
      message: `cannot be used: ${error.message} ("deno task account password NAME")`,
    });
    return z.NEVER;
  }
});

const Limit = z.int().min(1).max(1_000_000_000);

/** An account without its routes, which only a config has. */
export const AccountEntry = z.strictObject({
  addresses: z.array(Address).max(10_000).default([]),
  password_hash: Credentials.optional(),
  check_header_from: z.boolean().default(true),
  null_sender: z.boolean().default(false),
  messages_per_hour: Limit.default(1_000),
  messages_per_day: Limit.default(5_000),
  recipients_per_hour: Limit.default(2_000),
  recipients_per_day: Limit.default(10_000),
});
export type AccountEntry = z.infer<typeof AccountEntry>;

/** Whether there is more to an account than routes. */
const isAccount = ({ addresses, password_hash }: AccountEntry): boolean =>
  addresses.length > 0 || password_hash !== undefined;

export function accountsOf(
  entries: Readonly<Record<string, AccountEntry>>,
  problems: Problem[],
): AccountConfig[] {
  const accounts = Object.entries(entries).filter(([, entry]) => isAccount(entry)).map((
    [name, entry],
  ): AccountConfig => {
    problems.push(...nameProblems(name, ["accounts", name]));
    if (entry.addresses.length === 0) {
      problems.push({
        path: ["accounts", name, "addresses"],
        message: "is missing; an account sends from its addresses and no others",
      });
    }
    return {
      name,
      addresses: entry.addresses,
      ...(entry.password_hash ? { credentials: entry.password_hash } : {}),
      checkHeaderFrom: entry.check_header_from,
      nullSender: entry.null_sender,
      limits: {
        messagesPerHour: entry.messages_per_hour,
        messagesPerDay: entry.messages_per_day,
        recipientsPerHour: entry.recipients_per_hour,
        recipientsPerDay: entry.recipients_per_day,
      },
    };
  });
  return accounts;
}

const NAME = /^[^\s\p{C}"\\]+$/u;

/** A name is typed at logins, and stands in logs and events. */
function nameProblems(name: string, path: Path): Problem[] {
  let same = false;
  try {
    same = NAME.test(name) && name.length <= 128 && prepared(name, "the name") === name;
  } catch (error) {
    if (!(error instanceof SaslError)) throw error;
  }
  return same ? [] : [{
    path,
    message: "is not a name for logins: it takes up to 128 characters without spaces, quotes and " +
      "controls, in the form that SASLprep (RFC 4013) gives them",
  }];
}

/** Whether a name will do for an account. */
export const isAccountName = (name: string): boolean => nameProblems(name, []).length === 0;

/** The logins of an account: its name, and each address that is one mailbox. */
export const loginsOf = ({ addresses }: AccountConfig): string[] =>
  addresses.map(loginOf).filter((login) => login !== undefined);
