/**
 * The envelope: MAIL opens a transaction, RCPT adds to it (RFC 5321, section 3.3), within what the
 * listener and the account allow.
 */
import type { Submitter } from "../../../actors/ports.ts";
import type { AccountConfig } from "../../config/types.ts";
import { Refusal } from "../../submission/refusal.ts";
import { suppressed } from "../../submission/suppressed.ts";
import { formatMailbox, parseForwardPath, parseReversePath } from "../address.ts";
import { readPath } from "./arguments.ts";
import { paused, refusalFor } from "./faults.ts";
import { type Listener, SessionOver } from "./listener.ts";
import { readMailParameters, readRcptParameters } from "./parameters.ts";
import { Transaction } from "./transaction.ts";

/** What a session is when MAIL comes. */
export interface Sender {
  /** The client said EHLO. */
  readonly extended: boolean;
  readonly tls: boolean;
  readonly account: AccountConfig | undefined;
}

/** @throws Refusal */
export async function openTransaction(
  listener: Listener,
  rest: string,
  { extended, tls, account }: Sender,
): Promise<Transaction> {
  const { limits, clock, gate, submitter } = listener;
  if (submitter.paused) throw paused();
  const { mailbox, ascii, parameters: words } = readPath(rest, "FROM", parseReversePath);
  if (words !== "" && !extended) throw new Refusal(555, "5.5.4", "parameters take EHLO");
  const parameters = readMailParameters(words, { now: clock.now(), longest: limits.hold });
  if (!ascii && !parameters.smtputf8) throw notAscii();
  if ((parameters.size ?? 0) > limits.messageSize) {
    throw new Refusal(552, "5.3.4", `the message is larger than ${limits.messageSize} octets`);
  }
  if (parameters.requireTLS && !tls) {
    throw new Refusal(530, "5.7.10", "REQUIRETLS takes a session in TLS");
  }
  if (account) gate!.checkSender(account, mailbox);
  const noRoom = await overAllowance(listener, account, 1);
  if (noRoom) throw noRoom;
  return new Transaction(mailbox ? formatMailbox(mailbox) : "", parameters, account);
}

/**
 * Adds a recipient, or returns why there is no room for one more. That is not to count as a fault
 * of the client: RFC 5321, section 4.5.3.1.10, has it send the rest in a transaction of its own,
 * and a client that pipelines learns of the limit only afterwards.
 * @throws Refusal
 */
export async function addRecipient(
  listener: Listener,
  transaction: Transaction,
  rest: string,
  extended: boolean,
): Promise<Refusal | undefined> {
  const { limits, hostname } = listener;
  const { smtputf8 } = transaction.parameters;
  const { mailbox, ascii, parameters } = readPath(rest, "TO", parseForwardPath);
  if (parameters !== "" && !extended) throw new Refusal(555, "5.5.4", "parameters take EHLO");
  const dsn = readRcptParameters(parameters, smtputf8);
  if (!ascii && !smtputf8) throw notAscii();
  const address = mailbox ? formatMailbox(mailbox) : `postmaster@${hostname}`;
  if (transaction.has(address)) return undefined;
  checkSuppressed(listener, address, transaction.account);
  const full = transaction.recipients >= limits.recipients
    ? new Refusal(452, "4.5.3", "too many recipients; send to the others in another message")
    : await overAllowance(listener, transaction.account, transaction.recipients + 1);
  if (!full) transaction.add(address, dsn);
  else if (++transaction.overshoot > limits.recipientOvershoot) {
    throw new SessionOver("421 4.7.0 far too many recipients, closing");
  }
  return full;
}

/** @throws Refusal when the address is on the suppression list, or the list cannot be read */
function checkSuppressed(
  listener: Listener,
  address: string,
  account: AccountConfig | undefined,
): void {
  let entry: ReturnType<NonNullable<Submitter["suppressed"]>>;
  try {
    entry = listener.submitter.suppressed?.(address, account?.name ?? null);
  } catch (error) {
    throw refusalFor(listener, error);
  }
  if (entry) throw suppressed(entry);
}

/** What the account's limits say to a message with so many recipients. */
async function overAllowance(
  listener: Listener,
  account: AccountConfig | undefined,
  recipients: number,
): Promise<Refusal | undefined> {
  if (!account) return undefined;
  try {
    await listener.gate!.checkAllowance(account, recipients);
    return undefined;
  } catch (error) {
    return refusalFor(listener, error);
  }
}

/** RFC 6531, section 3.5. */
function notAscii(): Refusal {
  return new Refusal(553, "5.6.7", "an address that is not ASCII takes SMTPUTF8");
}
