/**
 * The webhook endpoints of the virtual world, and the checker's books on what they were told:
 * at least once, in order for each message, nothing but what is durable, and no position in the
 * log that has passed what nobody took. What an endpoint answers depends on its mood.
 */
import { CommandRefused } from "../../actors/message.ts";
import type { WebhookEndpoint, WebhookSender } from "../../actors/webhook_endpoint.ts";
import type { WebhookMessage } from "../../actors/webhook_message.ts";
import type { StoredEvent } from "../../events/catalogue.ts";
import { webhooksProjection } from "../../events/projections/webhooks.ts";
import { StoreUnavailable } from "../../events/store.ts";
import { DAY, HOUR, MINUTE } from "./clock.ts";
import { Violation } from "./invariants.ts";
import type { Process } from "./process.ts";
import type { Dice } from "./random.ts";
import type { World } from "./world.ts";

const MOODS = {
  well: 8,
  failing: 2, // 500
  refusing: 2, // the connection
  hanging: 2,
  lossy: 2, // takes what it is told, and the answer is lost
  picky: 2, // some messages are refused
  moved: 1, // 302
  gone: 0.3, // 410
} as const;
type Mood = keyof typeof MOODS;
/** Moods that an endpoint may keep when all faults are over. */
const LASTING: readonly Mood[] = ["well", "well", "well", "refusing"];

const ANSWER_WITHIN = 10_000;
/** The rule after which an event is given up, less the time that an answer takes. */
const GIVE_UP = 3 * DAY - MINUTE;

/** An event that an endpoint is to be told of. */
interface Owed {
  readonly id: string;
  readonly stream: string;
  readonly position: number;
  /** A stream that became unreadable cannot be told. */
  readonly broken: () => boolean;
  taken: boolean;
  /** That is durable, although its position is not reached. */
  kept: boolean;
  /** It went into the archive. */
  left: boolean;
  body: string | undefined;
  /** When it was not taken, by a clock that nobody sets. */
  firstRefused: number;
  lastRefused: number;
}

class Endpoint {
  mood: Mood = "well";
  /** Behind its position, by id, in the order of the log. */
  readonly owed = new Map<string, Owed>();
  row: ReturnType<typeof webhooksProjection.apply>;
  /** Virtual time at which it was last resumed. */
  resumed = -Infinity;

  constructor(readonly endpoint: WebhookEndpoint) {}

  /** The first event that can be told, and stands behind the position. */
  get open(): Owed | undefined {
    return this.owed.values().find(({ left, broken }) => !left && !broken());
  }

  get settled(): boolean {
    if (!this.row || this.row.parked !== null) return true;
    return this.open === undefined;
  }
}

export class Hooks {
  readonly dice: Dice;
  readonly #endpoints: readonly Endpoint[];
  #on = true;

  constructor(readonly world: World) {
    this.dice = world.dice.fork("webhooks");
    const count = this.dice.pick([0, 0, 0, 0, 1, 2]);
    this.#endpoints = Array.from({ length: count }, (_, n) =>
      new Endpoint({
        name: `hook${n}`,
        url: `https://hook${n}.example/`,
        events: this.dice.pick(KINDS),
        concurrency: this.dice.pick([1, 4, 32]),
        parkAfter: this.dice.pick([10 * MINUTE, 3 * HOUR, DAY]),
      }));
    for (const one of this.#endpoints) {
      this.#change(one);
      for (let n = this.dice.int(0, 3); n > 0; n--) {
        world.time.after(this.dice.between(0, world.window), () => this.#act(one));
      }
    }
  }

  get endpoints(): readonly WebhookEndpoint[] {
    return this.#endpoints.map(({ endpoint }) => endpoint);
  }

  /** Nothing more has to be told, or may be. */
  get settled(): boolean {
    return this.#endpoints.every(({ settled }) => settled);
  }

  /** From now on endpoints are as they are; somebody looks at those that are parked. */
  calm(): void {
    this.#on = false;
    for (const one of this.#endpoints) {
      one.mood = this.dice.pick(LASTING);
      this.world.time.after(HOUR, () => this.dice.chance(0.7) && this.#act(one, "resume"));
    }
  }

  sender(process: Process): WebhookSender {
    const onTheWay = new Map(this.#endpoints.map((one) => [one, new Set<string>()]));
    return {
      send: ({ name }, message, signal) => {
        const one = this.#endpoints.find(({ endpoint }) => endpoint.name === name)!;
        const streams = onTheWay.get(one)!;
        const stream = message.id.slice(0, message.id.lastIndexOf(":"));
        this.world.watch(() => begins(one, streams, stream));
        streams.add(stream);
        return new Promise<number>((resolve, reject) => {
          if (signal.aborted) return reject(new Error("aborted"));
          signal.addEventListener("abort", () => reject(new Error("aborted")), { once: true });
          process.timer(ANSWER_WITHIN, () => reject(new Error("no answer")));
          process.call(`posting to ${name}`, this.dice.between(1, 300), () => {
            if (signal.aborted) return undefined;
            this.world.watch(() => this.#posted(one, message));
            const status = this.#take(one, message);
            this.world.note(`${name} ${message.id}: ${status ?? "no answer"}`);
            return status;
          }).then((status) => status !== undefined && resolve(status), reject);
        }).finally(() => streams.delete(stream));
      },
    };
  }

  /** An event of a message, or of an endpoint, has become durable. */
  durable(event: StoredEvent, isReport: boolean, broken: () => boolean): void {
    switch (event.type) {
      case "WebhookAdvanced":
      case "WebhookParked":
      case "WebhookResumed":
        return this.#progress(event);
      case "Delivered":
      case "Failed": {
        if (isReport) return;
        const kind = event.type === "Delivered"
          ? "delivered"
          : event.data.permanent
          ? "failed"
          : "delayed";
        for (const { endpoint, owed } of this.#endpoints) {
          if (!endpoint.events.includes(kind)) continue;
          const { stream, position } = event;
          const id = `${stream}:${event.version}`;
          owed.set(id, {
            id,
            stream,
            position,
            broken,
            taken: false,
            kept: false,
            left: false,
            body: undefined,
            firstRefused: Infinity,
            lastRefused: -Infinity,
          });
        }
      }
    }
  }

  /** A stream goes into the archive: nothing of it can be told any more, nor has to be. */
  leaves(stream: string): void {
    const now = this.world.time.monotonic();
    for (const { endpoint: { name }, row, owed, resumed } of this.#endpoints) {
      for (const told of owed.values()) {
        if (told.stream !== stream || told.left) continue;
        if (!excused(told) && row?.parked === null && now - resumed > MINUTE) {
          throw new Violation(`${stream} leaves, and ${name} was not told of ${told.id}`);
        }
        told.left = true;
      }
    }
  }

  /** Everything was told, but to those that are parked. */
  end(): void {
    for (const { endpoint: { name }, row, open } of this.#endpoints) {
      const kept = this.world.disk.tables.get(webhooksProjection.name)?.rows.get(name);
      if (JSON.stringify(kept) !== JSON.stringify(row)) {
        throw new Violation(`6: the row of ${name} is not the fold of its events`);
      }
      if (!row || row.parked !== null) continue;
      if (!open) continue;
      if (!excused(open)) throw new Violation(`${name} was never told of ${open.id}`);
      throw new Violation(`${name} stands at ${row.position}, and was told of ${open.id}`);
    }
  }

  #progress(event: StoredEvent): void {
    if (!("endpoint" in event.data)) return;
    const name = event.data.endpoint;
    const one = this.#endpoints.find(({ endpoint }) => endpoint.name === name);
    if (!one) throw new Violation(`${event.type} of ${name}, which is no endpoint`);
    const { row, owed } = one;
    one.row = webhooksProjection.apply(row, event);
    if (!one.row) return;
    if (event.type === "WebhookResumed") one.resumed = this.world.time.monotonic();
    const { position } = one.row;
    if (row && position < row.position) {
      throw new Violation(`${name} went back from ${row.position} to ${position}`);
    }
    for (const [id, next] of owed) {
      const { position: at } = next;
      if (at > position) break;
      // One that begins is told of nothing that came before.
      const skipped = !row || event.type === "WebhookResumed";
      if (!skipped && !excused(next)) {
        throw new Violation(`${name} has passed ${id} at ${at}, which it did not take`);
      }
      owed.delete(id);
    }
    for (const next of owed.values()) {
      if (!isRecorded(one.row, next)) continue;
      if (!excused(next)) {
        throw new Violation(`${name} is beyond ${next.id}, which it did not take`);
      }
      next.kept = true;
    }
  }

  /** It is durable, said as before, and nothing before it was left out. */
  #posted({ endpoint: { name }, owed }: Endpoint, { id, body }: WebhookMessage): void {
    const told = owed.get(id);
    if (!told) throw new Violation(`${name} was told of ${id}, and is not owed that`);
    if (told.kept) throw new Violation(`${name} was told of ${id} after it was kept that it was`);
    if (told.body !== undefined && told.body !== body) {
      throw new Violation(`${name} was told of ${id} in other words`);
    }
    told.body = body;
    for (const before of owed.values()) {
      if (before === told) return;
      if (before.stream === told.stream && !excused(before)) {
        throw new Violation(`${name} was told of ${id} before ${before.id}`);
      }
    }
  }

  /** Undefined: no answer. */
  #take({ mood, owed }: Endpoint, { id }: WebhookMessage): number | undefined {
    const told = owed.get(id);
    if (!told) return 500;
    const refused = mood === "picky" && id.charCodeAt(id.indexOf(":") - 1) % 3 === 0;
    if (mood === "well" || mood === "lossy" || (mood === "picky" && !refused)) {
      told.taken = true;
      if (mood === "lossy" && this.dice.chance(0.7)) throw new Error("connection reset");
      return this.dice.pick([200, 202, 204]);
    }
    const now = this.world.time.monotonic();
    told.firstRefused = Math.min(told.firstRefused, now);
    told.lastRefused = Math.max(told.lastRefused, now);
    switch (mood) {
      case "refusing":
        throw new Error("connection refused");
      case "hanging":
        return undefined;
      case "moved":
        return 302;
      case "gone":
        return 410;
      default:
        return 500;
    }
  }

  #change(one: Endpoint): void {
    if (!this.#on) return;
    one.mood = this.dice.weighted(MOODS);
    this.world.note(`${one.endpoint.name} is ${one.mood}`);
    const most = Math.max(10 * MINUTE, Math.min(12 * HOUR, this.world.window / 2));
    this.world.time.after(this.dice.between(MINUTE, most), () => this.#change(one));
  }

  /** An operator parks it, or ends that. */
  #act({ endpoint: { name }, row }: Endpoint, only?: "resume"): void {
    const { program } = this.world;
    const act = row?.parked != null ? "resume" : "park";
    if (!program || (only && act !== only)) return;
    const skip = act === "resume" && this.dice.chance(0.3);
    this.world.note(`operator: ${act} ${name}${skip ? ", skip" : ""}`);
    program.webhooks.act(name, { act, who: "operator", why: "simulated", skip }).catch((cause) => {
      const expected = cause instanceof CommandRefused || cause instanceof StoreUnavailable;
      if (!expected) this.world.violated(cause);
    });
  }
}

/** One post of a message at a time, and no more than the endpoint bears. */
function begins({ endpoint }: Endpoint, streams: ReadonlySet<string>, stream: string): void {
  const { name, concurrency } = endpoint;
  if (streams.has(stream)) throw new Violation(`${name} is told of ${stream} twice at once`);
  if (streams.size >= concurrency) throw new Violation(`more than ${concurrency} posts to ${name}`);
}

const KINDS = [
  ["delivered", "delayed", "failed"],
  ["delivered", "failed"],
  ["delayed"],
] as const;

/** The row says that it is done, behind the position. */
function isRecorded(row: Endpoint["row"], { position }: Owed): boolean {
  if (row?.beyond == null) return false;
  const { upTo, open } = JSON.parse(row.beyond) as { upTo: number; open: number[] };
  return position <= upTo && !open.includes(position);
}

/** Taken, or given up as the rules say, or gone. */
const excused = ({ taken, left, broken, firstRefused, lastRefused }: Owed): boolean =>
  taken || left || broken() || lastRefused - firstRefused >= GIVE_UP;
