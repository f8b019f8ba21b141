/**
 * Prometheus metrics, fed by committed events: what is counted is what is in the log.
 *
 * Counting is on the path of every commit, so children of labelled metrics are looked up once and
 * kept; depth and memory are asked for only when somebody scrapes.
 */
import { Counter, Gauge, Histogram, Registry } from "prom-client";
import type { EventData, StoredEvent, StoredEventOf } from "../../events/catalogue.ts";
import { Result } from "../../events/schemas/message.ts";
import type { QueueView } from "../../events/projections/queue.ts";
import type { EventStore } from "../../events/store.ts";

/** What one commit of the event store was. */
export interface CommitReport {
  readonly events: number;
  readonly milliseconds: number;
}

export interface MetricsPorts {
  readonly store: Pick<EventStore, "subscribe" | "health">;
  readonly queue: Pick<QueueView, "depth">;
}

/** Attempts from here on are counted together: the label would otherwise grow with the config. */
const LAST_ATTEMPT_LABEL = 8;
/** More attempts than can run at a time; beyond it the oldest are forgotten. */
const MAX_OPEN_ATTEMPTS = 20_000;

const DELIVERY_SECONDS = [0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600];
const COMMIT_SECONDS = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5];
const COMMIT_EVENTS = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000];

interface OpenAttempt {
  /** Epoch milliseconds. */
  readonly started: number;
  readonly attempt: string;
  transport: string;
  tls: string;
}

/** Children of a counter by the value of its only label. */
class CountBy {
  readonly #children = new Map<string, Counter.Internal>();
  /** @param known values that are there from the start, at zero */
  constructor(private readonly counter: Counter<string>, known: readonly string[]) {
    for (const value of known) this.#child(value).inc(0);
  }
  inc(value: string): void {
    this.#child(value).inc();
  }
  #child(value: string): Counter.Internal {
    let child = this.#children.get(value);
    if (!child) this.#children.set(value, child = this.counter.labels(value));
    return child;
  }
}

export class Metrics {
  readonly #registry = new Registry();
  readonly #open = new Map<string, OpenAttempt>();
  readonly #delivery: Histogram<"attempt" | "transport" | "tls" | "result">;
  readonly #deliveryChildren = new Map<string, Histogram.Internal<string>>();
  readonly #commitSeconds: Histogram;
  readonly #commitEvents: Histogram;
  readonly #enqueued = this.#countBy(
    "messages_enqueued_total",
    "Messages (one per recipient) taken into the queue, by where they came from.",
    "source",
  );
  readonly #finished = this.#countBy(
    "messages_finished_total",
    "Messages that left the queue, by how.",
    "result",
    ["delivered", "failed", "cancelled"],
  );
  readonly #destinations = this.#countBy(
    "destinations_total",
    "Destinations looked up, by how their hosts were found.",
    "by",
  );
  readonly #connections = this.#countBy(
    "connections_total",
    "Connections to hosts, by how connecting ended.",
    "result",
    ["ok", "timeout", "canceled", "error"],
  );
  readonly #hosts = this.#countBy(
    "hosts_tried_total",
    "Hosts tried, over new and reused connections, by how that ended.",
    "result",
    Result.options,
  );
  readonly #security = this.#countBy(
    "security_total",
    "What deliveries found out about the proof of the other side, by what it was.",
    "what",
    SECURITY,
  );
  readonly #reports = this.#countBy(
    "reports_total",
    "Delivery status notifications sent to senders, by kind.",
    "kind",
  );

  #lastReport = "";

  constructor() {
    const registers = [this.#registry];
    this.#delivery = new Histogram({
      name: "postledger_delivery_seconds",
      help: "Seconds from the start of an attempt to its outcome.",
      labelNames: ["attempt", "transport", "tls", "result"],
      buckets: DELIVERY_SECONDS,
      registers,
    });
    this.#commitSeconds = new Histogram({
      name: "postledger_commit_seconds",
      help: "Seconds that a commit of the event store took, fsync included.",
      buckets: COMMIT_SECONDS,
      registers,
    });
    this.#commitEvents = new Histogram({
      name: "postledger_commit_events",
      help: "Events that one commit of the event store wrote.",
      buckets: COMMIT_EVENTS,
      registers,
    });
    this.gauge("process_resident_memory_bytes", "Resident memory.", () => Deno.memoryUsage().rss);
  }

  /** Begins to count what a store commits; returns the way to stop. */
  observe({ store, queue }: MetricsPorts): () => void {
    new Gauge({
      name: "postledger_queue_depth",
      help: "Messages by state.",
      labelNames: ["state"],
      registers: [this.#registry],
      async collect() {
        for (const [state, count] of Object.entries(await queue.depth())) {
          this.set({ state }, count);
        }
      },
    });
    this.gauge(
      "postledger_store_ok",
      "1 when the last write of the event store reached the disk, else 0.",
      () => store.health().ok ? 1 : 0,
    );
    return store.subscribe((events) => {
      for (const event of events) this.#count(event);
    });
  }

  /** For the `onCommit` of the event log. */
  readonly onCommit = ({ events, milliseconds }: CommitReport): void => {
    this.#commitSeconds.observe(milliseconds / 1_000);
    this.#commitEvents.observe(events);
  };

  /** A gauge whose value is asked for at each scrape. */
  gauge(name: string, help: string, value: () => number): void {
    new Gauge({
      name,
      help,
      registers: [this.#registry],
      collect() {
        this.set(value());
      },
    });
  }

  /** Gauges by one label; those that are not given any more are gone. */
  gauges(
    name: string,
    help: string,
    label: string,
    values: () => Iterable<readonly [string, number]>,
  ): void {
    new Gauge({
      name,
      help,
      labelNames: [label],
      registers: [this.#registry],
      collect() {
        this.reset();
        for (const [value, count] of values()) this.set({ [label]: value }, count);
      },
    });
  }

  /** A total that somebody else counts, by one label; asked for at each scrape. */
  totals(
    name: string,
    help: string,
    label: string,
    values: () => Readonly<Record<string, number>>,
  ): void {
    new Counter({
      name,
      help,
      labelNames: [label],
      registers: [this.#registry],
      collect() {
        this.reset();
        for (const [value, total] of Object.entries(values())) this.inc({ [label]: value }, total);
      },
    });
  }

  /** Like `totals`, by several labels. */
  totalsBy<L extends string>(
    name: string,
    help: string,
    labelNames: readonly L[],
    values: () => Iterable<
      { readonly labels: Readonly<Record<L, string>>; readonly count: number }
    >,
  ): void {
    new Counter({
      name,
      help,
      labelNames: [...labelNames],
      registers: [this.#registry],
      collect() {
        this.reset();
        for (const { labels, count } of values()) this.inc(labels, count);
      },
    });
  }

  async text(): Promise<{ readonly contentType: string; readonly text: string }> {
    return { contentType: this.#registry.contentType, text: await this.#registry.metrics() };
  }

  #countBy(name: string, help: string, label: string, known: readonly string[] = []): CountBy {
    return new CountBy(
      new Counter({
        name: `postledger_${name}`,
        help,
        labelNames: [label],
        registers: [this.#registry],
      }),
      known,
    );
  }

  #count(event: StoredEvent): void {
    switch (event.type) {
      case "Enqueued":
        this.#enqueued.inc(event.data.source.kind);
        break;
      case "AttemptStarted":
        this.#opened(event);
        break;
      case "TransportChosen": {
        const open = this.#open.get(event.stream);
        if (open) open.transport = event.data.transport;
        break;
      }
      case "DestinationsResolved":
        this.#destinations.inc(event.data.by);
        if (event.data.dnssec.expanded === "secure") this.#security.inc("destination-authentic");
        break;
      case "TLSAGathered":
        for (const what of securityOf(event.data)) this.#security.inc(what);
        break;
      case "HostTried": {
        const open = this.#open.get(event.stream);
        if (open) open.tls = event.data.tlsMode;
        if (event.data.fallback) this.#security.inc("plaintext-fallback");
        if (event.data.verifiedBy === "dane") this.#security.inc("dane-verified");
        this.#hosts.inc(event.data.result);
        const connected = connectionResult(event.data);
        if (connected !== undefined) this.#connections.inc(connected);
        break;
      }
      case "Delivered":
        this.#closed(event, "ok");
        this.#finished.inc("delivered");
        break;
      case "Failed":
        this.#closed(event, event.data.result);
        if (event.data.permanent) this.#finished.inc("failed");
        if (REQUIRETLS_CODES.has(event.data.enhanced ?? "") && event.data.reply === undefined) {
          this.#security.inc("requiretls-not-met");
        }
        break;
      case "Cancelled":
        this.#finished.inc("cancelled");
        break;
      case "DSNSent":
        this.#reported(event.data);
        break;
      default:
        break;
    }
  }

  /** Recipients that share a report note it one after the other. */
  #reported({ kind, dsn }: EventData<"DSNSent">): void {
    if (dsn === undefined || dsn === this.#lastReport) return;
    this.#lastReport = dsn;
    this.#reports.inc(kind);
  }

  #opened({ stream, time, data }: StoredEventOf<"AttemptStarted">): void {
    if (this.#open.size >= MAX_OPEN_ATTEMPTS) {
      for (const oldest of this.#open.keys()) {
        this.#open.delete(oldest);
        break;
      }
    }
    this.#open.set(stream, {
      started: Date.parse(time),
      attempt: data.attempt < LAST_ATTEMPT_LABEL ? String(data.attempt) : `${LAST_ATTEMPT_LABEL}+`,
      transport: "none",
      tls: "none",
    });
  }

  #closed({ stream, time }: StoredEvent, result: string): void {
    const open = this.#open.get(stream);
    if (!open) return; // the attempt was started by an earlier process
    this.#open.delete(stream);
    const { attempt, transport, tls } = open;
    const key = `${attempt} ${tls} ${result} ${transport}`;
    let child = this.#deliveryChildren.get(key);
    if (!child) {
      child = this.#delivery.labels({ attempt, transport, tls, result });
      this.#deliveryChildren.set(key, child);
    }
    // The wall clock may have been set back between the two events.
    child.observe(Math.max(0, Date.parse(time) - open.started) / 1_000);
  }
}

/** What is counted of DNSSEC, DANE and the ladder. */
const SECURITY = [
  "destination-authentic",
  "dane-required",
  "dane-verified",
  "dane-only-unusable",
  "tlsa-lookup-error",
  "plaintext-fallback",
  "requiretls-not-met",
];

/** Statuses of our own for a message with REQUIRETLS that could not be met (RFC 8689, section 5). */
const REQUIRETLS_CODES: ReadonlySet<string> = new Set(["5.7.30", "5.7.10", "4.7.10"]);

function securityOf({ tlsa, daneRequired }: StoredEventOf<"TLSAGathered">["data"]): string[] {
  if (tlsa === "failed") return ["tlsa-lookup-error"];
  if (tlsa !== "records") return [];
  return [daneRequired ? "dane-required" : "dane-only-unusable"];
}

/**
 * How connecting ended: `ok` once there was a connection, whatever became of it. Undefined when
 * none was tried to be made: no address, or the connection of an earlier message was reused.
 */
function connectionResult(
  { address, local, reply, reused, result }: StoredEventOf<"HostTried">["data"],
): "ok" | "timeout" | "canceled" | "error" | undefined {
  if (address === undefined || reused) return undefined;
  if (local !== undefined || reply !== undefined) return "ok";
  return result === "temperror" || result === "permerror" ? "ok" : result;
}
