/**
 * POST /messages: takes a message in, as it is (`message/rfc822`, envelope in the query) or as JSON
 * that is composed here. Answers when it is on disk, with an id per recipient.
 *
 * Content in `message/rfc822` flows through to the body store and is never held; JSON is held, so
 * it is smaller (http/body.ts).
 */
import type { Hash } from "node:crypto";
import type { BodyStore, Clock, Submission, Submitter } from "../../actors/ports.ts";
import { IntakeIsPaused } from "../../actors/admission.ts";
import { StoreUnavailable } from "../../events/store.ts";
import type { AccountGate } from "../accounts/gate.ts";
import type { AccountConfig } from "../config/types.ts";
import type { DkimSigner } from "../dkim/signer.ts";
import { isAscii, parseMailbox } from "../smtp/address.ts";
import { compose } from "../submission/compose.ts";
import { ComposeRequest, recipientsOf } from "../submission/compose_request.ts";
import { DEFAULT_INTAKE_LIMITS, Intake, type TakenMessage } from "../submission/intake.ts";
import { LineEnds } from "../submission/line_ends.ts";
import { Refusal } from "../submission/refusal.ts";
import { suppressed } from "../submission/suppressed.ts";
import { newMessageId, type Trace } from "../submission/trace.ts";
import {
  type BodyLimits,
  type HeldContent,
  mediaType,
  pieces,
  readJson,
  unsupportedMedia,
} from "./body.ts";
import {
  Idempotency,
  idempotencyKey,
  type IdempotencyPorts,
  messagesOf,
  requestHash,
  sameRequest,
} from "./idempotency.ts";
import { type Answer, type ApiRequest, type Operation, type Principal } from "./operation.ts";
import {
  badParameter,
  badRequest,
  contentTooLarge,
  forbidden,
  RequestProblem,
  unavailable,
  unprocessable,
} from "./problem.ts";
import { type Envelope, RAW, rawEnvelope, SUBMIT_PARAMETERS } from "./raw_envelope.ts";
import { Accepted } from "./shapes.ts";

export interface SubmitPorts {
  readonly submitter: Submitter;
  readonly bodies: BodyStore;
  readonly clock: Clock;
  readonly hostname: string;
  readonly idempotent: IdempotencyPorts["idempotent"];
  /** The accounts that tokens may be bound to, and what those may do; absent: there are none. */
  readonly accounts?: {
    get(name: string): AccountConfig | undefined;
    readonly gate: Pick<AccountGate, "checkSender" | "checkHeader" | "takeAllowance">;
  };
  /** Signs what is taken; absent: nothing is signed. */
  readonly signer?: Pick<DkimSigner, "begin">;
  /** Name of the listener. */
  readonly listener: string;
}

const JSON_TYPE = "application/json";
/** Below this, content waits for more: a small message is one write. */
const WRITE_SIZE = 32 * 1024;
const RETRY_AFTER_LIMIT = 600;

export function submitOperation(
  ports: SubmitPorts,
  held: HeldContent,
  limits: BodyLimits,
): Operation {
  const idempotency = new Idempotency({ ...ports, now: () => ports.clock.now() });
  return {
    id: "submitMessage",
    method: "post",
    path: "/messages",
    scope: "submit",
    about: `Takes a message in: as it is in ${RAW}, with its envelope in the query; or as JSON. ` +
      `Up to ${limits.message} octets as ${RAW}, up to ${limits.json} as JSON.`,
    parameters: SUBMIT_PARAMETERS,
    content: { [JSON_TYPE]: ComposeRequest, [RAW]: "a message (RFC 5322)" },
    answer: { status: 202, about: "It is on disk and will be delivered.", schema: Accepted },
    problems: [408, 409, 413, 415, 422, 429, 503],
    handle: async (request) => {
      const door = new Door(ports, held, limits, idempotency, request);
      try {
        return await door.take();
      } catch (error) {
        throw problemFor(error);
      }
    },
  };
}

/** One request on its way in. */
class Door {
  readonly #media: string;
  readonly #key: string | undefined;
  readonly #account: AccountConfig | undefined;

  constructor(
    readonly ports: SubmitPorts,
    readonly held: HeldContent,
    readonly limits: BodyLimits,
    readonly idempotency: Idempotency,
    readonly asked: ApiRequest,
  ) {
    this.#media = mediaType(asked.request);
    this.#key = idempotencyKey(asked.request);
    this.#account = accountOf(asked.principal, ports);
  }

  take(): Promise<Answer> {
    if (this.#media === RAW) return this.#raw();
    if (this.#media !== JSON_TYPE) throw unsupportedMedia([JSON_TYPE, RAW]);
    const [stray] = this.asked.query.keys();
    if (stray !== undefined) throw badParameter(stray, "it belongs into the JSON");
    return this.#json();
  }

  #raw(): Promise<Answer> {
    const { request, query } = this.asked;
    const envelope = rawEnvelope(query);
    this.#checkSender(envelope.mailFrom);
    const hash = this.#hash();
    const { message, idle } = this.limits;
    return this.#once(async (earlier) => {
      const content = pieces(request, this.ports.clock, message, idle);
      if (earlier) {
        for await (const piece of content) hash.update(piece);
        return hash.digest("hex");
      }
      const ends = new LineEnds();
      return await this.#intake(envelope, hash, async function* () {
        for await (const piece of content) {
          hash.update(piece);
          yield ends.convert(piece);
        }
      });
    });
  }

  #json(): Promise<Answer> {
    return this.held.with(this.asked.request, this.limits.json, (octets) => {
      const request = readJson(octets, ComposeRequest);
      this.#checkSender(request.from.address);
      const hash = this.#hash().update(octets);
      return this.#once(async (earlier) => {
        if (earlier) return hash.digest("hex");
        const { clock } = this.ports;
        const envelope = {
          mailFrom: request.from.address,
          recipients: recipientsOf(request),
          requireTLS: request.requireTLS ?? false,
          ...(request.metadata === undefined ? {} : { metadata: request.metadata }),
          ...(request.expires === undefined ? {} : { expires: Date.parse(request.expires) }),
        };
        return await this.#intake(envelope, hash, (id) =>
          compose(request, {
            messageId: newMessageId(id, this.ports.hostname),
            date: clock.now(),
          }));
      });
    });
  }

  /**
   * Runs a request, or gives the answer of the earlier one with its key.
   * @param work given `true` reads the content for its hash only, which it then returns
   */
  #once(work: (earlier: boolean) => Promise<Answer | string>): Promise<Answer> {
    const { account } = this.asked.principal;
    return this.idempotency.run(account, this.#key, async (row) => {
      const result = await work(row !== undefined);
      if (!row) return result as Answer;
      sameRequest(row, result as string);
      return {
        status: 202,
        body: { submission: row.submission, messages: messagesOf(row) },
        headers: { "idempotency-replayed": "true" },
      };
    });
  }

  #hash(): Hash {
    return requestHash(this.#media, new URL(this.asked.request.url).searchParams);
  }

  async #intake(
    envelope: Envelope,
    hash: Hash,
    content: (id: string) => AsyncIterable<Uint8Array>,
  ): Promise<Answer> {
    checkDeadline(envelope, this.ports.clock.now());
    const { submitter, bodies, accounts } = this.ports;
    if (submitter.paused) throw new IntakeIsPaused("no new mail is taken for now");
    this.#checkSuppressed(envelope);
    const account = this.#account;
    const giveBack = account &&
      await accounts?.gate.takeAllowance(account, envelope.recipients.length);
    const id = submitter.newSubmissionId();
    const intake = new Intake(
      bodies,
      this.#trace(id, envelope),
      {
        ...DEFAULT_INTAKE_LIMITS,
        // The content is held to its limit before: this one is for the line ends that it gains.
        messageSize: 2 * this.limits.message,
      },
      account && ((header) => accounts?.gate.checkHeader(account, header)),
      this.ports.signer,
    );
    try {
      for await (const octets of content(id)) {
        intake.write(octets);
        if (intake.refusal) throw intake.refusal;
        if (intake.pending >= WRITE_SIZE) await intake.flush();
      }
      if (intake.size === 0) throw badRequest("the message is empty");
      const taken = await intake.finish();
      const messages = await submitter.submit(this.#submission(id, envelope, taken, hash));
      return {
        status: 202,
        body: {
          submission: id,
          messages: messages.map(({ stream, rcptTo }) => ({ id: stream, to: rcptTo })),
        },
      };
    } catch (error) {
      giveBack?.();
      await intake.discard();
      throw error;
    }
  }

  #trace(id: string, { recipients }: Envelope): Trace {
    const [only, ...others] = recipients;
    return {
      by: this.ports.hostname,
      with: "HTTP",
      id,
      ...(only !== undefined && others.length === 0 ? { for: only } : {}),
      at: this.ports.clock.now(),
    };
  }

  #submission(
    id: string,
    { mailFrom, recipients, requireTLS, metadata, expires }: Envelope,
    taken: TakenMessage,
    hash: Hash,
  ): Submission {
    const { principal, peer } = this.asked;
    return {
      id,
      account: principal.account,
      mailFrom,
      recipients: recipients.map((rcptTo) => ({ rcptTo, dsn: {} })),
      body: taken.body,
      messageId: taken.messageId,
      has8bit: taken.has8bit,
      smtputf8: taken.internationalized || ![mailFrom, ...recipients].every(isAscii),
      requireTLS,
      ...(taken.tlsOptional ? { tlsOptional: true } : {}),
      ...(taken.signatures ? { signatures: taken.signatures } : {}),
      source: {
        kind: "http",
        listener: this.ports.listener,
        ...(peer === undefined ? {} : { peer }),
        login: principal.name,
      },
      ...(metadata && Object.keys(metadata).length > 0 ? { metadata } : {}),
      ...(expires === undefined ? {} : { expires }),
      ...(this.#key === undefined
        ? {}
        : { idempotency: { key: this.#key, request: hash.digest("hex") } }),
    };
  }

  /** @throws RequestProblem 422 naming each recipient that is on the suppression list */
  #checkSuppressed({ recipients }: Envelope): void {
    const errors = recipients.flatMap((rcptTo) => {
      const entry = this.ports.submitter.suppressed?.(rcptTo, this.asked.principal.account);
      if (!entry) return [];
      const { enhanced, message } = suppressed(entry);
      return [{ detail: `${rcptTo}: ${message} (${enhanced})` }];
    });
    if (errors.length > 0) throw unprocessable(errors);
  }

  #checkSender(mailFrom: string): void {
    if (!this.#account) return;
    const mailbox = mailFrom === "" ? null : parseMailbox(mailFrom);
    this.ports.accounts?.gate.checkSender(this.#account, mailbox);
  }
}

/** @throws RequestProblem 422 for a deadline that no attempt could keep */
function checkDeadline({ expires }: Envelope, now: number): void {
  if (expires === undefined || expires > now) return;
  throw unprocessable([{ pointer: "/expires", detail: "is over already" }]);
}

/** @throws RequestProblem 403 */
function accountOf({ account }: Principal, { accounts }: SubmitPorts): AccountConfig | undefined {
  if (account === null) return undefined;
  const found = accounts?.get(account);
  if (found) return found;
  throw forbidden(`the account ${account} that this token is bound to has no addresses in force`);
}

/** What a way in says in terms of SMTP, in terms of HTTP. */
function problemFor(error: unknown): unknown {
  // Who paused it, and why, is not for everybody who may submit.
  if (error instanceof IntakeIsPaused) return unavailable("no new mail is taken for now", 60);
  if (error instanceof StoreUnavailable) {
    return unavailable("the message cannot be stored now; nothing was enqueued");
  }
  if (!(error instanceof Refusal)) return error;
  const { code, enhanced, message } = error;
  const detail = `${message} (${enhanced})`;
  if (enhanced === "5.3.4") return contentTooLarge(detail);
  if (enhanced.startsWith("5.7.")) return forbidden(detail);
  if (enhanced.startsWith("4.7.")) {
    return new RequestProblem({
      status: 429,
      title: "Too many requests",
      detail,
      headers: { "retry-after": String(RETRY_AFTER_LIMIT) },
    });
  }
  return code < 500 ? unavailable(detail) : unprocessable([{ pointer: "", detail }]);
}
