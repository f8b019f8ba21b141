/**
 * What is done beside delivering, wired: the suppression list that bounces feed, webhooks, and
 * the archiving of what is finished. Each is a part of the tree of its own (tree.ts).
 */
import type { Clock, Log, Random } from "../actors/ports.ts";
import type { Part } from "../actors/supervision.ts";
import { Suppressions } from "../actors/suppression.ts";
import { Webhooks, type WebhookState } from "../actors/webhooks.ts";
import type { OpenStore } from "../events/open.ts";
import { suppressionId, suppressionProjection } from "../events/projections/suppression.ts";
import { webhooksProjection } from "../events/projections/webhooks.ts";
import type { Config } from "./config/types.ts";
import type { Metrics } from "./http/metrics.ts";
import { retentionChore } from "./retention_chore.ts";
import { endpointOf, WebhookPoster } from "./webhooks.ts";

export interface ErrandPorts {
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  readonly opened: Pick<OpenStore, "store" | "row" | "page" | "retention">;
}

export class Errands {
  readonly suppressions: Suppressions;
  readonly webhooks: Webhooks;
  readonly #poster: WebhookPoster;
  readonly #ports: ErrandPorts;
  #config: Config;

  constructor(config: Config, ports: ErrandPorts) {
    const { clock, random, log, opened: { store, row, page } } = ports;
    this.#config = config;
    this.#ports = ports;
    this.suppressions = new Suppressions({
      clock,
      log,
      store,
      view: {
        list: (limit, after = "") => page(suppressionProjection, after, limit),
        get: (address, account) => row(suppressionProjection, suppressionId(address, account)),
      },
      policy: () => {
        const { automatic, expire } = this.#config.suppression;
        return { automatic, ...(expire === undefined ? {} : { lasts: expire }) };
      },
    });
    this.#poster = new WebhookPoster(clock, config.webhooks);
    this.webhooks = new Webhooks(config.webhooks.map(endpointOf), {
      clock,
      random,
      log,
      store,
      row: (endpoint) => row(webhooksProjection, endpoint),
      sender: this.#poster,
    });
  }

  /** Puts a new configuration in force. */
  async use(config: Config): Promise<void> {
    this.#config = config;
    this.#poster.use(config.webhooks);
    await this.webhooks.use(config.webhooks.map(endpointOf));
  }

  /** Adds what operators watch. */
  observe(metrics: Pick<Metrics, "gauge" | "gauges" | "totals">): void {
    const ofWebhooks = (pick: (state: WebhookState) => number) => () =>
      Object.fromEntries(this.webhooks.list().map((one) => [one.name, pick(one)]));
    metrics.totals(
      "postledger_webhook_told_total",
      "Events that webhook endpoints took.",
      "endpoint",
      ofWebhooks(({ told }) => told),
    );
    metrics.totals(
      "postledger_webhook_given_up_total",
      "Events that webhook endpoints were never told of: refused for days, or unreadable.",
      "endpoint",
      ofWebhooks(({ givenUp }) => givenUp),
    );
    metrics.gauges(
      "postledger_webhook_behind",
      "Positions of the log that a webhook endpoint has yet to be told of.",
      "endpoint",
      () => Object.entries(ofWebhooks(({ behind }) => behind)()),
    );
    metrics.gauge(
      "postledger_webhooks_parked",
      "Webhook endpoints that nothing is sent to until they are resumed.",
      () => this.webhooks.list().filter(({ parked }) => parked !== null).length,
    );
    metrics.gauge(
      "postledger_webhooks_failing",
      "Webhook endpoints in use that did not take what was sent last.",
      () => this.webhooks.list().filter(({ failures }) => failures > 0).length,
    );
  }

  parts(): Part[] {
    const { suppressions, webhooks } = this;
    const { clock, log, opened: { retention } } = this.#ports;
    return [
      {
        name: "suppression",
        start: () => Promise.resolve(suppressions.start()),
        stop: () => suppressions.stop(),
      },
      { name: "webhooks", start: () => webhooks.start(), stop: () => webhooks.stop() },
      retentionChore(
        retention,
        () => this.#config.retention.keep,
        () => webhooks.toldUpTo,
        { clock, log },
      ),
    ];
  }
}
