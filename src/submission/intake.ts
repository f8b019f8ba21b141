/**
 * Intake: takes the content of one message, whatever way it comes in, into the body store.
 *
 *  1. every octet passes the line check and the size limit
 *  2. the header section is kept back until it is whole (at most 256 KiB), and read
 *  3. Received, and Date and Message-ID where missing, are put before it
 *  4. what DKIM signs is hashed as it flows by; the signatures stand beside the body, since they are
 *     known only at its end and belong before its beginning
 *  5. from then on content flows through to the body store; nothing piles up here beyond what the
 *     caller writes between two calls of `flush`
 *
 * What is wrong with the content is noted as `refusal` at once, and what follows is dropped: the
 * caller can read on to the end of the content and then say so.
 */
import { Buffer } from "node:buffer";
import type { BodyStore, BodyWriter, StagedBody } from "../../events/store.ts";
import type { DkimSigner, MessageSignature } from "../dkim/signer.ts";
import { beginsWithField, headerLength, isInternationalized, scanHeader } from "./header.ts";
import { LineCheck } from "./lines.ts";
import { Refusal } from "./refusal.ts";
import { dateField, messageIdField, newMessageId, receivedField, type Trace } from "./trace.ts";

export interface IntakeLimits {
  /** Octets of the content as it comes in. */
  readonly messageSize: number;
  /** Octets of the header section. */
  readonly headerSize: number;
  /** Octets of a line, CRLF included. */
  readonly textLine: number;
  /** Received fields; more is taken for a loop (RFC 5321, section 6.3). */
  readonly hops: number;
}

export const DEFAULT_INTAKE_LIMITS: IntakeLimits = {
  messageSize: 50 * 1024 * 1024,
  headerSize: 256 * 1024,
  textLine: 1000,
  hops: 50,
};

/** A message whose body is staged. */
export interface TakenMessage {
  readonly body: StagedBody;
  readonly messageId: string | null;
  /** Of the stored message, the added fields included. */
  readonly has8bit: boolean;
  /** The header section has octets that are not ASCII: with SMTPUTF8, it needs it (RFC 6531). */
  readonly internationalized: boolean;
  /** The header has `TLS-Required: No` (RFC 8689, section 5). */
  readonly tlsOptional: boolean;
  /** DKIM-Signature fields, each with its CRLF, to be sent before the body; absent for none. */
  readonly signatures?: string[];
}

/** Looks at the header section as it came in; says what stands against the message, if anything. */
export type InspectHeader = (header: Uint8Array) => Refusal | undefined;

const CRLF = Buffer.from("\r\n");

export class Intake {
  readonly #bodies: BodyStore;
  readonly #trace: Trace;
  readonly #limits: IntakeLimits;
  readonly #inspect: InspectHeader | undefined;
  readonly #signer: Pick<DkimSigner, "begin"> | undefined;
  readonly #lines: LineCheck;
  #size = 0;
  /** The header section so far, while it is not whole; grows by doubling. */
  #header: Buffer | undefined = Buffer.alloc(0);
  #headerSize = 0;
  #pieces: Uint8Array[] = [];
  #pending = 0;
  #writer: BodyWriter | undefined;
  #messageId: string | null = null;
  #internationalized = false;
  #tlsOptional = false;
  /** The recipient in our Received field is not ASCII. */
  #addedNonAscii = false;
  #signature: MessageSignature | undefined;
  #refusal: Refusal | undefined;

  constructor(
    bodies: BodyStore,
    trace: Trace,
    limits: IntakeLimits = DEFAULT_INTAKE_LIMITS,
    inspect?: InspectHeader,
    signer?: Pick<DkimSigner, "begin">,
  ) {
    this.#bodies = bodies;
    this.#trace = trace;
    this.#limits = limits;
    this.#inspect = inspect;
    this.#signer = signer;
    this.#lines = new LineCheck(limits.textLine);
  }

  /** Why the message cannot be taken, as soon as that is known. */
  get refusal(): Refusal | undefined {
    return this.#refusal;
  }

  /** Octets of content so far. */
  get size(): number {
    return this.#size;
  }

  /** Octets that wait for `flush`. */
  get pending(): number {
    return this.#pending;
  }

  /** Takes the next octets of the content; they must not change until the next `flush`. */
  write(octets: Uint8Array): void {
    if (this.#refusal || octets.length === 0) return;
    this.#size += octets.length;
    const { messageSize } = this.#limits;
    if (this.#size > messageSize) {
      return this.refuse(
        new Refusal(552, "5.3.4", `the message is larger than ${messageSize} octets`),
      );
    }
    const fault = this.#lines.check(octets);
    if (fault) return this.refuse(fault);
    if (this.#header) this.#readHeader(octets);
    else {
      this.#signature?.body(octets);
      this.#pass(octets);
    }
  }

  /**
   * Hands what waits to the body store.
   * @throws what the body writer throws, StoreUnavailable among it; then `refuse` or `discard`
   */
  async flush(): Promise<void> {
    if (this.#pieces.length === 0 || this.#refusal) return;
    const octets = this.#pieces.length === 1 ? this.#pieces[0]! : Buffer.concat(this.#pieces);
    this.#pieces = [];
    this.#pending = 0;
    this.#writer ??= this.#bodies.create();
    await this.#writer.write(octets);
  }

  /**
   * Ends the content. A last line without CRLF gets one, since SMTP cannot carry it otherwise.
   * @throws Refusal when there is one
   * @throws what the body writer throws, StoreUnavailable among it; then `discard`
   */
  async finish(): Promise<TakenMessage> {
    const fault = this.#refusal ? undefined : this.#lines.end();
    if (fault) this.refuse(fault);
    if (!this.#lines.atLineStart) this.write(CRLF);
    if (this.#header && !this.#refusal) this.#endHeader(this.#header.subarray(0, this.#headerSize));
    if (this.#refusal) throw this.#refusal;
    await this.flush();
    const writer = this.#writer!;
    const signatures = await this.#signature?.finish();
    return {
      body: await writer.finish(),
      messageId: this.#messageId,
      has8bit: this.#lines.has8bit || this.#addedNonAscii,
      internationalized: this.#internationalized || this.#addedNonAscii,
      tlsOptional: this.#tlsOptional,
      ...(signatures ? { signatures } : {}),
    };
  }

  /** Gives the message up for a reason; the first one stands. */
  refuse(refusal: Refusal): void {
    this.#refusal ??= refusal;
    this.#header = undefined;
    this.#pieces = [];
    this.#pending = 0;
    // A body that cannot even be given up is an orphan, and orphans are swept at start.
    this.discard().catch(() => {});
  }

  /** Gives the body up, at any time, also after `finish` when the message was not enqueued. */
  async discard(): Promise<void> {
    const writer = this.#writer;
    this.#writer = undefined;
    await writer?.discard();
  }

  #pass(octets: Uint8Array): void {
    this.#pieces.push(octets);
    this.#pending += octets.length;
  }

  #readHeader(octets: Uint8Array): void {
    const searched = this.#headerSize;
    // Nearly always the header section is whole in the first piece, and need not be copied.
    const content = searched === 0
      ? Buffer.from(octets.buffer, octets.byteOffset, octets.length)
      : this.#append(octets);
    if (beginsWithField(content) === "no") {
      // No header section, or an empty one. Without the empty line, the first line of the body
      // would be read as a field.
      const empty = content[0] === 13;
      if (empty && content.length < 2) return this.#keep(octets, searched);
      this.#endHeader(Buffer.alloc(0));
      if (!empty) this.#pass(CRLF);
      return this.#pass(content);
    }
    const length = headerLength(content, searched);
    const known = length < 0 ? content.length : length;
    if (known > this.#limits.headerSize) {
      return this.refuse(
        new Refusal(
          552,
          "5.3.4",
          `the header section is larger than ${this.#limits.headerSize} octets`,
        ),
      );
    }
    if (length < 0) return this.#keep(octets, searched);
    this.#endHeader(content.subarray(0, length));
    if (this.#refusal) return;
    this.#signature?.body(content.subarray(length + CRLF.length)); // behind the empty line
    this.#pass(content.subarray(length));
  }

  #keep(octets: Uint8Array, searched: number): void {
    if (searched === 0) this.#append(octets);
  }

  #append(octets: Uint8Array): Buffer {
    const size = this.#headerSize + octets.length;
    if (size > this.#header!.length) {
      const grown = Buffer.alloc(Math.max(4096, 2 * size));
      grown.set(this.#header!.subarray(0, this.#headerSize));
      this.#header = grown;
    }
    this.#header!.set(octets, this.#headerSize);
    this.#headerSize = size;
    return this.#header!.subarray(0, size);
  }

  /** Reads the header section and passes it on, behind the fields that are added. */
  #endHeader(header: Buffer): void {
    this.#header = undefined;
    const facts = scanHeader(header);
    if (facts.received > this.#limits.hops) {
      return this.refuse(
        new Refusal(
          554,
          "5.4.6",
          `the message has made more than ${this.#limits.hops} hops: a mail loop`,
        ),
      );
    }
    const objection = this.#inspect?.(header);
    if (objection) return this.refuse(objection);
    this.#internationalized = this.#lines.has8bit && isInternationalized(header);
    this.#messageId = facts.messageId;
    this.#tlsOptional = facts.tlsOptional;
    let added = receivedField(this.#trace);
    if (!facts.hasDate) added += dateField(this.#trace.at);
    if (!facts.hasMessageId) {
      this.#messageId = newMessageId(this.#trace.id, this.#trace.by);
      added += messageIdField(this.#messageId);
    }
    const fields = Buffer.from(added);
    this.#addedNonAscii = fields.length > added.length;
    this.#pass(fields);
    if (header.length > 0) this.#pass(header);
    if (this.#signer) this.#signature = this.#signer.begin(Buffer.concat([fields, header]));
  }
}
