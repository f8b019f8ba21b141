/** A queue for tests of the actors: the real log on a real disk, scripted deliveries, manual time. */
import { setImmediate } from "node:timers";
import assert from "node:assert/strict";
import type { StoredEvent } from "../../events/catalogue.ts";
import { type OpenStore, openStore } from "../../events/open.ts";
import { type EventStore, StoreUnavailable } from "../../events/store.ts";
import type {
  Delivery,
  DeliveryJob,
  Findings,
  Outcome,
  Reporter,
  ReportRequest,
  Router,
  RoutingFacts,
  Submission,
  TransportChoice,
} from "../../actors/ports.ts";
import type { DestinationPolicy } from "../../actors/destination.ts";
import type { RetryPolicies } from "../../actors/retry.ts";
import { Supervisor } from "../../actors/supervisor.ts";
import { QueueSubmitter } from "../../actors/submitter.ts";
import { direct, hostTried, policy, T0 } from "./given.ts";
import { LogLines, ManualClock } from "./manual_clock.ts";

export const delivered: Outcome = {
  kind: "delivered",
  host: "mx.example.net",
  address: "192.0.2.1",
  reply: { code: 250, enhanced: "2.0.0", text: "Ok" },
  tls: { mode: "none", verifiedBy: "none" },
  dsnOffered: false,
};
export const refused = (permanent: boolean, reason = "no"): Outcome => ({
  kind: "failed",
  permanent,
  result: permanent ? "permerror" : "temperror",
  reason,
});

type Script = (job: DeliveryJob, findings: Findings, signal: AbortSignal) => Promise<Outcome>;

export class QueueHarness {
  readonly clock = new ManualClock(T0);
  readonly log = new LogLines();
  readonly jobs: DeliveryJob[] = [];
  /** Jobs that came together. */
  readonly transactions: (readonly DeliveryJob[])[] = [];
  /** How deliveries go; a test sets it. */
  script: Script = (_job, findings) => {
    findings.note(hostTried());
    return Promise.resolve(delivered);
  };
  /** What every destination may be burdened with. */
  limits: DestinationPolicy = { concurrency: 5 };
  /** Over which transport messages go. */
  choose: (facts: RoutingFacts) => TransportChoice = () => direct;
  /** When messages are tried again, and for how long they may wait. */
  retry: RetryPolicies = () => policy;
  lifetimes: readonly number[] = [policy.lifetime];
  /** Reports that were composed. */
  readonly reports: ReportRequest[] = [];
  /** A fault in composing reports; a test sets it. */
  composing: (report: ReportRequest) => void = () => {};
  /** While true, appends fail as on a full disk. */
  diskFull = false;
  /** While true, appends reach the disk, and are reported as failed. */
  unsure = false;
  readonly failed: unknown[] = [];
  supervisor!: Supervisor;
  submitter!: QueueSubmitter;
  opened!: OpenStore;
  #ids = 0;

  private constructor(readonly dataDir: string) {}

  static async create(): Promise<QueueHarness> {
    const harness = new QueueHarness(await Deno.makeTempDir({ prefix: "postledger-actors-" }));
    await harness.open();
    return harness;
  }

  /** Opens the data folder with a new supervisor, as a process that starts does. */
  async open(): Promise<void> {
    const { clock, log, dataDir } = this;
    this.opened = await openStore({ dataDir, clock });
    const { view, bodies } = this.opened;
    const store = this.#store();
    const ids = { next: () => `01${String(++this.#ids).padStart(24, "0")}` };
    const router: Router = {
      choose: (facts) => this.choose(facts),
      expect: (facts) => this.choose(facts),
      destination: ({ type, transport }, rcptTo) =>
        type === "direct" ? rcptTo.slice(rcptTo.indexOf("@") + 1) : `transport:${transport}`,
    };
    const delivery: Delivery = {
      attempt: (jobs, findings, signal) => {
        this.jobs.push(...jobs);
        this.transactions.push(jobs);
        return Promise.all(jobs.map((job, n) => this.script(job, findings[n]!, signal)));
      },
    };
    const reporter: Reporter = {
      compose: async (report) => {
        this.composing(report);
        this.reports.push(report);
        const [{ kind, stream }] = report;
        const writer = bodies.create();
        await writer.write(new TextEncoder().encode(`Subject: ${kind} ${stream}\r\n\r\n`));
        return {
          body: await writer.finish(),
          messageId: `<${stream}@example.com>`,
          has8bit: false,
          smtputf8: false,
          discard: () => writer.discard(),
        };
      },
    };
    this.supervisor = new Supervisor(
      {
        clock,
        random: { next: () => 0 },
        ids,
        log,
        store,
        view,
        router,
        delivery,
        reporter,
        policy: (message) => this.retry(message),
        lifetimes: () => this.lifetimes,
      },
      { concurrency: 20, policy: () => this.limits },
      (cause) => this.failed.push(cause),
    );
    this.submitter = new QueueSubmitter({
      clock,
      ids,
      store,
      unavailable: () => this.supervisor.storeFailed(),
    });
  }

  #store(): EventStore {
    const { store } = this.opened;
    const health = store.health.bind(store);
    const append: EventStore["append"] = async (appends, bodies) => {
      if (this.diskFull) throw new StoreUnavailable("database or disk is full");
      const stored = await store.append(appends, bodies);
      if (this.unsure) throw new StoreUnavailable("fsync failed, the result is unknown");
      return stored;
    };
    return {
      append,
      readStream: store.readStream.bind(store),
      version: store.version.bind(store),
      readAll: store.readAll.bind(store),
      dayTime: store.dayTime.bind(store),
      head: store.head.bind(store),
      subscribe: store.subscribe.bind(store),
      health: () => this.diskFull ? { ok: false, why: "disk full", since: 0 } : health(),
    };
  }

  async submit(rcptTo = "bob@example.net", mailFrom = "alice@example.com"): Promise<string> {
    const [stream] = await this.submitTo([rcptTo], mailFrom);
    return stream!;
  }

  /** One submission to several recipients; a stream for each. */
  async submitTo(
    recipients: readonly string[],
    mailFrom = "alice@example.com",
    more: Partial<Submission> = {},
  ): Promise<string[]> {
    const writer = this.opened.bodies.create();
    const id = this.submitter.newSubmissionId();
    await writer.write(new TextEncoder().encode(`Message-ID: <${id}@example.com>\r\n\r\nhi\r\n`));
    const messages = await this.submitter.submit({
      id,
      account: null,
      mailFrom,
      recipients: recipients.map((rcptTo) => ({ rcptTo, dsn: {} })),
      body: await writer.finish(),
      messageId: `<${id}@example.com>`,
      has8bit: false,
      smtputf8: false,
      requireTLS: false,
      source: { kind: "smtp" },
      ...more,
    });
    return messages.map(({ stream }) => stream);
  }

  events(stream: string): Promise<StoredEvent[]> {
    return this.opened.store.readStream(stream);
  }

  async types(stream: string): Promise<string[]> {
    return (await this.events(stream)).map(({ type }) => type);
  }

  /** Lets the event loop turn until the condition holds; fails when it never does. */
  async until(condition: () => boolean | Promise<boolean>, what = "condition"): Promise<void> {
    for (let turn = 0; turn < 5_000; turn++) {
      if (await condition()) return;
      await new Promise((resolve) => setImmediate(resolve));
    }
    assert.fail(`never came true: ${what}\n${this.log.lines.join("\n")}`);
  }

  async untilState(stream: string, state: string): Promise<void> {
    await this.until(
      async () => (await this.opened.view.get(stream))?.state === state,
      `${stream} is ${state}`,
    );
  }

  async remove(): Promise<void> {
    const stopped = this.supervisor.stop(0);
    await this.clock.advance(60_000);
    await stopped;
    await this.opened.close();
    await Deno.remove(this.dataDir, { recursive: true });
  }
}
