/**
 * A mail transaction (RFC 5321, section 3.3): the envelope as it grows with MAIL and RCPT, and
 * with BDAT the content that is under way.
 */
import type { EventData } from "../../../events/catalogue.ts";
import type { Submission } from "../../../actors/ports.ts";
import type { AccountConfig } from "../../config/types.ts";
import type { Intake, TakenMessage } from "../../submission/intake.ts";
import { isAscii } from "../address.ts";
import type { MailParameters } from "./parameters.ts";

type Dsn = EventData<"Enqueued">["dsn"];

export class Transaction {
  /** By address: a recipient that is named twice gets the message once. */
  readonly #recipients = new Map<string, Dsn>();
  /** RCPT commands beyond the limit. */
  overshoot = 0;
  /** The submission id, and the content so far, once BDAT has begun. */
  chunked: { readonly id: string; readonly intake: Intake } | undefined;

  /**
   * @param mailFrom an address; "" is the null reverse-path
   * @param account for which the message is submitted, where that takes a login
   */
  constructor(
    readonly mailFrom: string,
    readonly parameters: MailParameters,
    readonly account?: AccountConfig,
  ) {}

  get recipients(): number {
    return this.#recipients.size;
  }

  /** The recipient, where there is exactly one. */
  get onlyRecipient(): string | undefined {
    return this.#recipients.size === 1 ? this.#recipients.keys().next().value : undefined;
  }

  has(rcptTo: string): boolean {
    return this.#recipients.has(rcptTo);
  }

  add(rcptTo: string, dsn: Pick<Dsn, "notify" | "orcpt">): void {
    this.#recipients.set(rcptTo, { ...this.parameters.dsn, ...dsn });
  }

  submission(
    id: string,
    taken: TakenMessage,
    source: Submission["source"],
  ): Submission {
    const { due, priority } = this.parameters;
    const recipients = Array.from(this.#recipients, ([rcptTo, dsn]) => ({ rcptTo, dsn }));
    // SMTPUTF8 is asked for by clients that might need it; the message needs it only if something
    // in envelope or header is not ASCII, and only then must a next hop without it be passed by.
    const needed = taken.internationalized || !isAscii(this.mailFrom) ||
      recipients.some(({ rcptTo }) => !isAscii(rcptTo));
    return {
      id,
      account: this.account?.name ?? null,
      mailFrom: this.mailFrom,
      recipients,
      body: taken.body,
      messageId: taken.messageId,
      has8bit: taken.has8bit,
      smtputf8: this.parameters.smtputf8 && needed,
      requireTLS: this.parameters.requireTLS,
      ...(taken.tlsOptional ? { tlsOptional: true } : {}),
      ...(taken.signatures ? { signatures: taken.signatures } : {}),
      source,
      ...(due === undefined ? {} : { due }),
      ...(priority === undefined ? {} : { priority }),
    };
  }
}
