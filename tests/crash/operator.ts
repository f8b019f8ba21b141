/**
 * An operator who acts on a queue over its HTTP API while it is treated badly, and looks whether
 * what was answered is so: a rule holds new mail, a pause turns it away, an address on the
 * suppression list is refused, and mail that is held stays where it is.
 *
 * Whether the log has the acts is compared at the end (acts.ts).
 */
import { sleep, until } from "../peers/wait.ts";
import type { Server } from "../peers/serve.ts";
import { type Act, type Answer, type Kind, OPERATOR } from "./acts.ts";
import { LAME, RULED } from "./mail.ts";

export interface OperatorPorts {
  readonly server: Pick<Server, "data" | "httpPort">;
  readonly random: () => number;
  /** Sends one message to an address in this domain; its id when it was acknowledged. */
  readonly send: (domain: string, to?: string) => Promise<string | undefined>;
  /** Whether the sink has a message. */
  readonly received: (id: string) => boolean;
  /** Also turns all mail away now and then. */
  readonly pauses: boolean;
  /** Milliseconds between two acts, at the most. */
  readonly within?: number;
}

const WITHIN = 60;
/** Until an act at the end is answered. */
const AT_REST = 30_000;

interface Rule {
  readonly id: string;
  readonly reason: string;
}

export class Operator {
  readonly acts: Act[] = [];
  /** Mail that a rule held as it came in: the reason of the rule, by load id. */
  readonly ruled = new Map<string, string>();
  readonly violations: string[] = [];
  readonly #ports: OperatorPorts;
  readonly #stop = new AbortController();
  /** Of `ruled`, what nobody has asked to be released yet. */
  readonly #kept = new Set<string>();
  #rule: Rule | undefined;
  #mayBePaused = false;
  #suppressed = 0;
  #working: Promise<void> = Promise.resolve();
  /** A connection for each request: on one that was kept, `fetch` asks twice when it breaks. */
  readonly #client = Deno.createHttpClient({ poolMaxIdlePerHost: 0 });

  constructor(ports: OperatorPorts) {
    this.#ports = ports;
  }

  /** Acts until `rest`. */
  start(): void {
    const { random, within = WITHIN } = this.#ports;
    this.#working = (async () => {
      while (!this.#stop.signal.aborted) {
        await sleep(random() * within);
        if (this.#stop.signal.aborted) return;
        await this.#turn().catch((error) => {
          if (!(error instanceof Unanswered)) throw error;
        });
      }
    })();
  }

  async close(): Promise<void> {
    await this.#end();
    this.#client.close();
  }

  async #end(): Promise<void> {
    this.#stop.abort();
    await this.#working;
  }

  /** Lifts everything and releases all that is held, on a server that is up. */
  async rest(): Promise<void> {
    await this.#end();
    const insist = (what: string, act: () => Promise<boolean>) => until(what, AT_REST, act);
    await insist("mail to be taken again", () => this.#resume());
    await insist("the hold rule to be removed", () => this.#removeRule());
    this.#kept.clear();
    await insist("all mail to be released", async () => {
      const { each, next } = await this.#bulk("release", { all: true });
      return each.size === 0 && next === null;
    });
  }

  async #turn(): Promise<void> {
    this.#lookAtKept();
    if (this.#mayBePaused) return void await this.#resume();
    const turns: (() => Promise<unknown>)[] = [
      () => this.#bulk("hold", { filter: { "to-domain": LAME, state: "queued" } }),
      () => this.#bulk("release", { filter: { "to-domain": LAME } }),
      () => this.#bulk("kick", { filter: { error: "451" } }),
      () => this.#holdAndRelease(),
      () => this.#rule ? this.#sendRuled() : this.#addRule(),
      () => this.#rule ? this.#sendRuled() : this.#addRule(),
      () => this.#removeRule(),
      () => this.#suppress(),
      () => this.#releaseRuled(),
    ];
    if (this.#ports.pauses) turns.push(() => this.#pause());
    await turns[Math.floor(this.#ports.random() * turns.length)]!();
  }

  #lookAtKept(): void {
    for (const id of this.#kept) {
      if (this.#ports.received(id)) {
        this.violations.push(`${id} was received while a rule held it`);
        this.#kept.delete(id);
      }
    }
  }

  // What acts on messages.

  async #bulk(act: "hold" | "release" | "kick", selection: object) {
    const entry = this.#begin(act);
    const wanted = { act, reason: entry.reason, ...selection };
    const { status, body } = await this.#ask("POST", "/queue/act", wanted, entry);
    const each = new Map<string, boolean>();
    if (status !== 200) return { each, next: null };
    const { results, next } = body as {
      results: { id: string; done: boolean }[];
      next: string | null;
    };
    for (const { id, done } of results) each.set(id, done);
    entry.answer = { each };
    return { each, next };
  }

  /** One message, by its id. */
  async #holdAndRelease(): Promise<void> {
    const { body } = await this.#ask("GET", "/messages?state=queued&limit=1");
    const [message] = (body as { messages?: { id: string }[] }).messages ?? [];
    if (!message) return;
    const { id } = message;
    const path = (act: string) => `/messages/${id}/${act}`;
    if (await this.#single("hold", path("hold"), id)) {
      await this.#single("release", path("release"), id);
    }
  }

  async #single(kind: Kind, path: string, stream?: string): Promise<boolean> {
    const entry = this.#begin(kind);
    const { status } = await this.#ask("POST", path, { reason: entry.reason }, entry);
    return settled(entry, status, stream);
  }

  // What new mail meets.

  async #addRule(): Promise<void> {
    const entry = this.#begin("add rule");
    const wanted = { filter: { toDomain: RULED }, reason: entry.reason };
    const { status, body } = await this.#ask("POST", "/hold-rules", wanted, entry);
    if (settled(entry, status)) {
      this.#rule = { id: (body as { id: string }).id, reason: entry.reason };
      await this.#sendRuled();
    }
  }

  /** Mail that the rule in force holds; it was before the mail was sent, and is after. */
  async #sendRuled(): Promise<void> {
    const rule = this.#rule!;
    const { status, body } = await this.#ask("GET", "/hold-rules");
    const { rules } = body as { rules: Rule[] };
    if (status === 200 && !rules.some(({ id }) => id === rule.id)) {
      this.violations.push(`hold rule (${rule.reason}) was answered as added, and is gone`);
      this.#rule = undefined;
      return;
    }
    const id = await this.#ports.send(RULED);
    if (id === undefined) return;
    this.ruled.set(id, rule.reason);
    this.#kept.add(id);
  }

  /** True when there is none. */
  async #removeRule(): Promise<boolean> {
    this.#rule = undefined;
    const { status, body } = await this.#ask("GET", "/hold-rules");
    if (status !== 200) return false;
    for (const { id } of (body as { rules: Rule[] }).rules) {
      const entry = this.#begin("remove rule");
      const why = encodeURIComponent(entry.reason);
      const path = `/hold-rules/${id}?reason=${why}`;
      const removed = await this.#ask("DELETE", path, undefined, entry);
      if (!settled(entry, removed.status)) return false;
    }
    return true;
  }

  async #releaseRuled(): Promise<void> {
    this.#kept.clear(); // from the moment on at which it is asked for
    await this.#bulk("release", { filter: { "to-domain": RULED } });
  }

  async #pause(): Promise<void> {
    this.#mayBePaused = true;
    if (!await this.#single("pause", "/intake/pause")) return;
    const id = await this.#ports.send("load.example");
    if (id !== undefined) this.violations.push(`${id} was acknowledged while no mail was taken`);
    await this.#resume();
  }

  /** True when mail is taken. */
  async #resume(): Promise<boolean> {
    const { status, body } = await this.#ask("GET", "/intake");
    if (status !== 200) return false;
    const { paused } = body as { paused: object | null };
    if (paused !== null && !await this.#single("resume", "/intake/resume")) return false;
    this.#mayBePaused = false;
    return true;
  }

  /** Puts an address on the list, is refused, takes it off, and is not refused any more. */
  async #suppress(): Promise<void> {
    const local = `suppressed.${++this.#suppressed}`;
    const address = `${local}@load.example`;
    const added = this.#begin("suppress");
    const wanted = { address, reason: added.reason };
    const { status } = await this.#ask("POST", "/suppressions", wanted, added);
    if (!settled(added, status)) return;
    const id = await this.#ports.send("load.example", address);
    if (id !== undefined) this.violations.push(`${id} was taken for an address on the list`);
    const lifted = this.#begin("lift");
    const unwanted = { address, reason: lifted.reason };
    const off = await this.#ask("POST", "/suppressions/lift", unwanted, lifted);
    if (!settled(lifted, off.status) && off.status === 404) {
      this.violations.push(`${address} was answered as suppressed, and is not on the list`);
    }
  }

  #begin(kind: Kind): Act {
    const act = { kind, reason: `act ${this.acts.length + 1}` };
    this.acts.push(act);
    return act;
  }

  /**
   * @param act what is asked for; where the connection is refused, it cannot have been done
   * @throws Unanswered
   */
  async #ask(
    method: string,
    path: string,
    body?: object,
    act?: Act,
  ): Promise<{ readonly status: number; readonly body: unknown }> {
    const { server } = this.#ports;
    try {
      const token = await Deno.readTextFile(`${server.data}/api-token`);
      const response = await fetch(`http://127.0.0.1:${server.httpPort}/api/v1${path}`, {
        method,
        client: this.#client,
        headers: {
          authorization: `Bearer ${token.trim()}`,
          "content-type": "application/json",
          "x-operator": OPERATOR,
        },
        ...(body ? { body: JSON.stringify(body) } : {}),
        signal: AbortSignal.timeout(10_000),
      });
      return { status: response.status, body: await response.json() };
    } catch (cause) {
      const why = cause instanceof Error ? cause.cause ?? cause : cause;
      if (act && /connection refused/i.test(String(why))) act.answer = { refused: String(why) };
      throw new Unanswered("no answer");
    }
  }
}

/** The server was not there, or ended before it answered. */
class Unanswered extends Error {}

/** Notes the answer to an act on one thing; true when it was done. */
function settled(act: Act, status: number, stream?: string): boolean {
  const done: Answer | undefined = status >= 200 && status < 300
    ? { done: true, ...(stream === undefined ? {} : { stream }) }
    : status >= 400 && status < 500
    ? { refused: String(status) }
    : undefined; // 503: what is on the disk is not known
  if (done) act.answer = done;
  return status >= 200 && status < 300;
}
