/**
 * Direct delivery to the domains of a small internet: a message to somebody at each, and what the
 * log then tells of it. Shared by the tests of DANE, MTA-STS and TLS reports.
 */
import assert from "node:assert/strict";
import { dataOf, exportedEvents, type LoggedEvent } from "./history.ts";
import type { Internet } from "./internet.ts";
import type { Server } from "./serve.ts";
import { submitWithPython } from "./submit.ts";
import { until } from "./wait.ts";

/** Routing that sends everything by MX, over the resolver of that internet. */
export const directOver = (
  { resolver, smtpPort }: Pick<Internet, "resolver" | "smtpPort">,
  /** File of trust anchors instead of the CA store. */
  ca?: string,
): string => `
[dns]
servers = ["${resolver}"]
${ca === undefined ? "" : `\n[tls]\nca_file = "${ca}"\n`}
[[routes]]
transport = "out"

[transports.out]
type = "direct"
port = ${smtpPort}
allow_loopback = true
`;

/** Domains, each with the event that has to come of a message to it. */
export type Outcomes = Readonly<Record<string, "Delivered" | "Failed">>;

/** What happened to one message. */
export class Story {
  constructor(readonly events: readonly LoggedEvent[]) {}

  /** The hosts that were tried, in their order. */
  get tried(): Record<string, unknown>[] {
    return this.all("HostTried");
  }

  /** What was found out about the first host. */
  get gathered(): Record<string, unknown> {
    return this.data("TLSAGathered");
  }

  all(type: string): Record<string, unknown>[] {
    return this.events.filter((event) => event.type === type).map(({ data }) => data);
  }

  /** The first of its type. */
  data(type: string): Record<string, unknown> {
    return dataOf(this.events, type);
  }

  /** The attempt failed for that reason and not for good, and none delivered it. */
  assertPutOff(reason: RegExp): void {
    const failed = this.data("Failed");
    assert.equal(failed.permanent, false);
    assert.match(String(failed.reason), reason);
    assert.deepEqual(this.all("Delivered"), []);
  }
}

export class Correspondence {
  readonly #server: Pick<Server, "smtpPort" | "data">;
  readonly #from: string;
  readonly #stories = new Map<string, Story>();

  constructor(server: Pick<Server, "smtpPort" | "data">, from: string) {
    this.#server = server;
    this.#from = from;
  }

  /** Writes to `user` at each domain, and waits for what has to come of it. */
  async writeTo(outcomes: Outcomes, user = "bob"): Promise<void> {
    const { smtpPort: port } = this.#server;
    const domains = Object.keys(outcomes);
    for (const domain of domains) {
      const subject = domain.replace(".test", "");
      await submitWithPython({ port, from: this.#from, to: `${user}@${domain}`, subject });
    }
    let last: LoggedEvent[] = [];
    await until("an outcome for every domain", 40_000, async () => {
      last = await exportedEvents(this.#server);
      return domains.every((domain) => {
        const story = storyOf(last, `${user}@${domain}`);
        this.#stories.set(`${user}@${domain}`, story);
        return story.all(outcomes[domain]!).length > 0;
      });
    }).catch((error: Error) => {
      const reasons = last.flatMap(({ type, data }) => type === "Failed" ? [data.reason] : []);
      throw new Error(`${error.message}\n${reasons.join("\n")}`);
    });
  }

  /** What happened to the message to `user` at that domain, as far as it was waited for. */
  story(domain: string, user = "bob"): Story {
    const found = this.#stories.get(`${user}@${domain}`);
    assert.ok(found, `nobody wrote to ${user}@${domain}`);
    return found;
  }
}

function storyOf(events: readonly LoggedEvent[], rcptTo: string): Story {
  const first = events.find(({ type, data }) => type === "Enqueued" && data.rcptTo === rcptTo);
  return new Story(events.filter(({ stream }) => stream === first?.stream));
}
