/**
 * What always holds (DESIGN.md, section 3), checked against what is durable and what the network
 * saw, as it happens and once more at the end. The numbers in the checks are those of that list.
 *
 * The checker trusts nothing of the running program: it reads the disk below the event log, keeps
 * books of its own, and asks the pure parts (fold, chain, projection) only to compare.
 */
import { Buffer } from "node:buffer";
import { createHash } from "node:crypto";
import type { EventData, StoredEvent } from "../../events/catalogue.ts";
import { chainFindings, eventHash } from "../../events/chain.ts";
import { decode } from "../../events/decode.ts";
import { Uncovered } from "../../events/checkpoints.ts";
import type { Checkpoint, RawEvent, Transaction } from "../../events/engine.ts";
import { FINAL_STATES, queueProjection, type QueueRow } from "../../events/projections/queue.ts";
import { evolve, INTERRUPTED, type Message } from "../../actors/message.ts";
import { downgrade } from "../../src/dsn/downgrade.ts";
import type { Archives } from "./archives.ts";
import { isAct } from "./desk.ts";
import type { Disk } from "./disk.ts";
import type { Hooks } from "./hooks.ts";
import { POISON } from "./mishaps.ts";
import type { NewMailBooks } from "./new_mail.ts";
import type { Receipt } from "./smtp_host.ts";

/** An invariant does not hold. */
export class Violation extends Error {
  override readonly name = "Violation";
}

/** One attempt, as the log tells it. */
interface Attempt {
  readonly number: number;
  readonly incarnation: number;
  outcome?: "delivered" | "failed";
  /** Cut short by a crash, or by a fault of our own code. */
  interrupted: boolean;
  /** Addresses that were tried and did not say ok. */
  readonly unsure: Set<string>;
}

/** The checker's own books on one stream. */
interface Books {
  readonly stream: string;
  message: Message;
  row: QueueRow;
  last: RawEvent;
  readonly attempts: Attempt[];
  readonly receipts: { readonly receipt: Receipt; readonly attempt: Attempt | undefined }[];
  /** It has an event that this program cannot read: nobody may try it, and somebody must see it. */
  broken: boolean;
  readonly reports: { readonly kind: string; readonly dsn: string | undefined }[];
}

export class Invariants {
  readonly streams = new Map<string, Books>();
  /** The last event of each stream that is no message's. */
  readonly #others = new Map<string, RawEvent>();
  readonly #byRecipient = new Map<string, Books[]>();
  /** Streams whose attempt has no outcome. */
  readonly #open = new Set<string>();
  readonly #acknowledged: string[] = [];
  /** Submissions of which a recipient is poison. */
  readonly #poisoned = new Set<string>();
  /** Reports, and whether each is on delays. */
  readonly #onDelays = new Map<string, boolean>();
  /** Streams that are queued or attempting. */
  readonly unfinished = new Set<string>();
  incarnation = 0;

  constructor(
    readonly disk: Disk,
    readonly hooks: Hooks,
    readonly archives: Archives,
    readonly newMail: NewMailBooks,
  ) {}

  /** A transaction has become durable. */
  durable(transaction: Transaction): void {
    const touched = new Set<Books>();
    for (const raw of transaction.events) {
      if (!this.#other(raw)) touched.add(this.#event(raw));
    }
    for (const books of touched) this.#compare(books);
    this.newMail.settle(transaction.prune);
    this.archives.durable(transaction);
  }

  /** Between two processes: puts an event on a stream that only a newer program could read. */
  breakStream(stream: string): void {
    const books = this.streams.get(stream)!;
    const unhashed = {
      position: this.disk.events.length + 1,
      stream,
      version: books.last.version + 1,
      type: "Teleported",
      schema: 1,
      time: books.last.time,
      data: "{}",
      prev: books.last.hash,
    };
    books.last = { ...unhashed, hash: eventHash(unhashed) };
    books.broken = true;
    // Nobody can make its report; one that waits to be tried has to be held.
    if (books.row.finished !== null) this.unfinished.delete(stream);
    this.#open.delete(stream);
    this.disk.insert(books.last);
  }

  /** Invariant 1: the sender has been told so. */
  acknowledged(streams: readonly string[]): void {
    for (const stream of streams) {
      const books = this.streams.get(stream);
      if (!books) throw new Violation(`1: ${stream} was acknowledged and is not on disk`);
      if (books.row.body !== null) this.#bodyThere(books);
      this.#acknowledged.push(stream);
    }
  }

  /** Invariant 1, for a submission as a whole. */
  acknowledgedAs(submission: string, recipients: readonly string[]): void {
    const streams = recipients.map((rcptTo) => {
      const books = (this.#byRecipient.get(rcptTo) ?? []).find(({ message }) =>
        message.enqueued.submission === submission
      );
      if (books) return books.stream;
      throw new Violation(`1: ${submission} was acknowledged and is not on disk for ${rcptTo}`);
    });
    this.acknowledged(streams);
  }

  /** Invariant 2, as far as a dial shows it. */
  dialled(address: string): void {
    if (this.#open.size === 0) {
      throw new Violation(`2: ${address} was dialled, and no attempt on disk is open`);
    }
  }

  /** Invariant 2, exactly: an envelope goes out. */
  envelope(rcptTo: string): void {
    const candidates = this.#byRecipient.get(rcptTo) ?? [];
    if (!candidates.some(({ stream }) => this.#open.has(stream))) {
      throw new Violation(`2: RCPT TO:<${rcptTo}> was sent, and no such attempt on disk is open`);
    }
  }

  received(receipt: Receipt): void {
    const sha256 = createHash("sha256").update(receipt.content, "latin1").digest("hex");
    const books = (this.#byRecipient.get(receipt.rcptTo) ?? []).find(({ message }) =>
      message.enqueued.mailFrom === receipt.mailFrom &&
      (message.enqueued.body === sha256 || this.#twin(message) === sha256)
    );
    if (!books) {
      throw new Violation(
        `${receipt.host} received for ${receipt.rcptTo} what nobody sent:\n${receipt.content}`,
      );
    }
    const attempt = books.attempts.findLast((one) => one.incarnation <= receipt.incarnation);
    books.receipts.push({ receipt, attempt });
  }

  /** A report of ours goes as its twin in 7 bits to a host that takes no other. */
  #twin({ enqueued: { source, body } }: Message): string | undefined {
    if (source.kind !== "dsn") return undefined;
    const octets = this.disk.bodies.get(body)?.octets ?? this.disk.files.get(body);
    return octets && createHash("sha256").update(downgrade(Buffer.from(octets))).digest("hex");
  }

  /** Nothing more will happen: what must have come to pass by now. */
  end(): void {
    for (const books of this.streams.values()) {
      this.#concluded(books);
      this.#duplicates(books);
    }
    for (const stream of this.#acknowledged) {
      if (!this.streams.has(stream)) throw new Violation(`acknowledged ${stream} is lost`);
    }
    this.#bodies();
    this.#projections();
    this.#checkpoints();
    this.hooks.end();
    this.newMail.end();
    this.archives.end();
  }

  /** On a stream that is no message's the chain has to hold as well. */
  #other(raw: RawEvent): boolean {
    if (!/^(destination|webhook) |^retention$/.test(raw.stream) && !isAct(raw.stream)) return false;
    const last = this.#others.get(raw.stream);
    const findings = chainFindings(raw, last);
    if (findings.length > 0) throw new Violation(`8: ${raw.stream}: ${findings.join("; ")}`);
    this.#others.set(raw.stream, raw);
    if (isAct(raw.stream)) this.newMail.act(decode(raw));
    if (raw.type.startsWith("Webhook")) this.hooks.durable(decode(raw), false, () => false);
    return true;
  }

  /** Invariants 3, 4, 5 and 8, event by event. */
  #event(raw: RawEvent): Books {
    const known = this.streams.get(raw.stream);
    const findings = chainFindings(raw, known?.last);
    if (findings.length > 0) throw new Violation(`8: ${raw.stream}: ${findings.join("; ")}`);
    const event = decode(raw);
    if (known?.broken) return this.#quarantined(known, raw, event);
    if (known) this.#mayFollow(known, event);
    const books = known ?? this.#enqueued(event, raw);
    if (known) {
      known.message = evolve(known.message, event);
      known.row = queueProjection.apply(known.row, event)!;
      known.last = raw;
    }
    this.#record(books, event);
    const isReport = books.message.enqueued.source.kind === "dsn";
    this.hooks.durable(event, isReport, () => books.broken);
    this.newMail.message(event);
    return books;
  }

  #quarantined(books: Books, raw: RawEvent, event: StoredEvent): Books {
    const { stream, row } = books;
    if (event.type !== "Held" || row.state === "held") {
      throw new Violation(`${event.type} on ${stream}, which cannot be read`);
    }
    books.row = queueProjection.apply(row, event)!;
    books.last = raw;
    this.unfinished.delete(stream);
    return books;
  }

  #enqueued(event: StoredEvent, raw: RawEvent): Books {
    if (event.type !== "Enqueued") {
      throw new Violation(`${event.stream} begins with ${event.type}`);
    }
    const books: Books = {
      stream: event.stream,
      message: evolve(undefined, event),
      row: queueProjection.apply(undefined, event)!,
      last: raw,
      attempts: [],
      receipts: [],
      broken: false,
      reports: [],
    };
    this.streams.set(event.stream, books);
    if (poisoned(books.message)) this.#poisoned.add(event.data.submission);
    const same = this.#byRecipient.get(event.data.rcptTo);
    if (same) same.push(books);
    else this.#byRecipient.set(event.data.rcptTo, [books]);
    this.#bodyThere(books);
    return books;
  }

  #mayFollow(books: Books, event: StoredEvent): void {
    const { stream, row } = books;
    if (FINAL_STATES.includes(row.state) && event.type !== "DSNSent") {
      throw new Violation(`5: ${event.type} follows on ${stream}, which was ${row.state}`);
    }
    const open = this.#open.has(stream);
    if (event.type === "AttemptStarted" && open) {
      throw new Violation(`3: a second attempt was started on ${stream}`);
    }
    const expired = event.type === "Failed" && event.data.permanent &&
      /^gave up (after|for the deadline) /.test(event.data.reason);
    if ((event.type === "Delivered" || event.type === "Failed") && !open && !expired) {
      throw new Violation(`4: ${event.type} on ${stream} ends no attempt`);
    }
    if (event.type === "DSNSent" && event.data.kind === "delayed" && row.state !== "queued") {
      throw new Violation(`the delay of ${stream} is told of, which is ${row.state}`);
    }
    if (poisoned(books.message)) return;
    if (event.type === "Failed" && event.data.stack !== undefined && !this.#besidePoison(books)) {
      throw new Violation(`fault of our own code: ${stream}: ${event.data.stack}`);
    }
    if (event.type === "Held" && event.data.who === "supervisor") {
      throw new Violation(`${stream} was quarantined: ${event.data.why}\n${event.data.stack}`);
    }
  }

  /** It went in one transaction with a recipient that is poison; from then on it goes alone. */
  #besidePoison({ message: { enqueued: { submission }, faults } }: Books): boolean {
    return faults === 0 && this.#poisoned.has(submission);
  }

  #record(books: Books, event: StoredEvent): void {
    const { stream, attempts } = books;
    switch (event.type) {
      case "AttemptStarted":
        if (event.data.attempt !== attempts.length + 1) {
          throw new Violation(`attempt ${event.data.attempt} of ${stream} is out of turn`);
        }
        this.#open.add(stream);
        attempts.push({
          number: event.data.attempt,
          incarnation: this.incarnation,
          interrupted: false,
          unsure: new Set(),
        });
        return;
      case "HostTried":
        if (event.data.result !== "ok" && event.data.address !== undefined) {
          attempts.at(-1)?.unsure.add(event.data.address);
        }
        return;
      case "Delivered":
      case "Failed": {
        if (!this.#open.delete(stream)) return; // it expired while it waited
        const attempt = attempts.at(-1)!;
        attempt.outcome = event.type === "Delivered" ? "delivered" : "failed";
        if (event.type === "Delivered") return this.#delivered(books, attempt);
        attempt.interrupted = event.data.reason.includes(INTERRUPTED) ||
          event.data.stack !== undefined;
        return;
      }
      case "DSNSent":
        books.reports.push({ kind: event.data.kind, dsn: event.data.dsn });
        return this.#oneSubject(event.data);
    }
  }

  /** A report is on delays, or on how messages ended. */
  #oneSubject({ kind, dsn }: EventData<"DSNSent">): void {
    if (dsn === undefined) return;
    const delayed = kind === "delayed";
    if ((this.#onDelays.get(dsn) ?? delayed) !== delayed) {
      throw new Violation(`the report ${dsn} is on a delay, and on the end of another message`);
    }
    this.#onDelays.set(dsn, delayed);
  }

  /** What the log calls delivered, a host has taken, and said so. */
  #delivered({ stream, receipts }: Books, attempt: Attempt): void {
    const taken = receipts.some((one) => one.attempt === attempt && one.receipt.acknowledged);
    if (!taken) throw new Violation(`${stream} is Delivered, and no host said so`);
  }

  /** Invariant 6, as the log grows: the row is the fold of the events, and agrees with the state. */
  #compare({ stream, row, message, broken }: Books): void {
    const table = this.disk.tables.get(queueProjection.name);
    if (table?.done && !same(table.rows.get(stream), row)) {
      throw new Violation(`6: the row of ${stream} is not the fold of its events`);
    }
    if (broken) return;
    const { status, attempts, due, version } = message;
    const waits = status === "queued" || status === "attempting";
    if (waits || (row.report_due !== null && !poisoned(message))) this.unfinished.add(stream);
    else this.unfinished.delete(stream);
    if (
      row.state !== status || row.attempts !== attempts || row.version !== version ||
      row.due !== (waits ? due : null) || row.report_due !== (message.reportDue ?? null)
    ) throw new Violation(`6: row and state of ${stream} tell different stories`);
  }

  #bodyThere({ stream, message }: Books): void {
    const { body } = message.enqueued;
    const kept = this.disk.bodies.get(body);
    if (!kept) throw new Violation(`1: ${stream} is on disk without its body ${body}`);
    const octets = kept.octets ?? this.disk.files.get(body);
    if (!octets) throw new Violation(`1: the file of body ${body} of ${stream} is not on disk`);
    if (createHash("sha256").update(octets).digest("hex") !== body) {
      throw new Violation(`1: body ${body} of ${stream} is damaged`);
    }
  }

  /** Every message is delivered, reported as failed, held or cancelled (and 4). */
  #concluded({ stream, row, message, reports, attempts, broken }: Books): void {
    if (broken && row.state !== "held" && row.finished === null) {
      throw new Violation(`${stream} is broken, and not held`);
    }
    if (broken) return;
    if (row.state === "queued" || row.state === "attempting") {
      throw new Violation(`${stream} is ${row.state} still: ${row.last_error}`);
    }
    const open = attempts.find(({ outcome }) => outcome === undefined);
    if (open) throw new Violation(`4: attempt ${open.number} of ${stream} has no outcome`);
    const told = (kind: string) => reports.filter((report) => report.kind === kind).length;
    const { notify } = message.enqueued.dsn;
    const due = {
      failed: row.state === "failed" ? 1 : 0,
      relayed: row.state === "delivered" && notify?.includes("SUCCESS") ? 1 : 0,
    };
    for (const [kind, times] of Object.entries(due)) {
      // A report that a fault of our own code kept from being made stays due.
      if (told(kind) === times || (row.report_due !== null && poisoned(message))) continue;
      throw new Violation(
        `${stream} is ${row.state}, and that is told as ${kind} ${told(kind)} times`,
      );
    }
    if (reports.some(({ dsn }) => dsn !== undefined) && notify?.includes("NEVER")) {
      throw new Violation(`${stream} is reported on, and nobody was to be told`);
    }
    for (const { kind, dsn } of reports) {
      if (dsn === undefined) continue;
      const { of = "" } = this.streams.get(dsn)?.message.enqueued.source ?? {};
      const about = this.streams.get(of)?.message.enqueued;
      const { submission, mailFrom } = message.enqueued;
      if (about?.submission !== submission || about.mailFrom !== mailFrom) {
        throw new Violation(`the report (${kind}) on ${stream} is not in the queue as ${dsn}`);
      }
    }
    if (told("delayed") > 1) {
      throw new Violation(`the delay of ${stream} was told twice`);
    }
  }

  /** A message that was received again was cut off before, and the log says so. */
  #duplicates({ stream, receipts }: Books): void {
    for (const { receipt, attempt } of receipts.slice(0, -1)) {
      if (!attempt) throw new Violation(`${stream} was received before an attempt was on disk`);
      const unsure = !receipt.acknowledged && attempt.unsure.has(receipt.address);
      if (attempt.interrupted || unsure) continue;
      throw new Violation(
        `${stream} was received ${receipts.length} times; attempt ${attempt.number} at ` +
          `${receipt.host} is ${attempt.outcome} and explains no second time`,
      );
    }
  }

  /** Invariant 8: checkpoints follow each other without gap, each over what the log has. */
  #checkpoints(): void {
    let last: Checkpoint | undefined;
    for (const checkpoint of this.disk.checkpoints) {
      const { to, time } = checkpoint;
      const covered = this.disk.events.slice(last?.to ?? 0, to);
      const expected = Uncovered.after(last).add(covered).checkpoint(time, {
        sign: () => checkpoint.signature,
      });
      if (!same(checkpoint, expected)) {
        throw new Violation(`8: checkpoint ${checkpoint.number} does not cover the log`);
      }
      last = checkpoint;
    }
    if (last?.to !== (this.disk.events.length || undefined)) {
      throw new Violation(`8: checkpoints cover ${last?.to ?? 0} of ${this.disk.events.length}`);
    }
  }

  /** Bodies are there exactly while somebody needs them; so are their files. */
  #bodies(): void {
    const needed = new Map<string, number>();
    for (const books of this.streams.values()) {
      const { body } = books.row;
      if (body === null) continue;
      needed.set(body, (needed.get(body) ?? 0) + 1);
      this.#bodyThere(books);
    }
    for (const [sha256, { uses }] of this.disk.bodies) {
      if (needed.get(sha256) === uses) continue;
      throw new Violation(`5: body ${sha256} has ${uses} uses, not ${needed.get(sha256) ?? 0}`);
    }
  }

  /** Invariant 6, as a whole: rows and counters of a fold from zero. */
  #projections(): void {
    const table = this.disk.tables.get(queueProjection.name);
    const kept = [...this.streams.values()].filter(({ stream }) => !this.disk.pruned.has(stream));
    if (table && table.rows.size !== kept.length) {
      throw new Violation(`6: ${table.rows.size} rows for ${kept.length} streams`);
    }
    const counts = new Map<string, number>();
    for (const { stream, row } of kept) {
      if (!same(table?.rows.get(stream), row)) {
        throw new Violation(`6: the row of ${stream} is not the fold of its events`);
      }
      counts.set(row.state, (counts.get(row.state) ?? 0) + 1);
    }
    for (const [state, count] of table?.counts ?? []) {
      if (count !== (counts.get(state) ?? 0)) {
        throw new Violation(
          `6: ${count} messages are counted as ${state}, not ${counts.get(state)}`,
        );
      }
    }
  }
}

const poisoned = ({ enqueued: { mailFrom, rcptTo } }: Message): boolean =>
  mailFrom.includes(POISON) || rcptTo.includes(POISON);

function same(a: object | undefined, b: object): boolean {
  if (a === undefined) return false;
  const left = a as Record<string, unknown>;
  const right = b as Record<string, unknown>;
  const keys = Object.keys(right);
  return Object.keys(left).length === keys.length && keys.every((key) => left[key] === right[key]);
}
