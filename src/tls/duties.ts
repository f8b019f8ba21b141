/**
 * What a running queue does about the TLS of others: finds and keeps MTA-STS policies, and sends
 * TLS reports. Puts the parts in this folder together with the store and the configuration.
 */
import type { BodyStore, Clock, EventStore, Ids, Log, Random } from "../../actors/ports.ts";
import type { Part } from "../../actors/supervision.ts";
import type { OpenStore } from "../../events/open.ts";
import { tlsReportsProjection } from "../../events/projections/tls_reports.ts";
import { StoreUnavailable } from "../../events/store.ts";
import { Chore } from "../chore.ts";
import type { Config } from "../config/types.ts";
import type { DkimSigner } from "../dkim/signer.ts";
import { requestHttps } from "../https.ts";
import type { Resolver } from "../ports.ts";
import { MtaStsPolicies } from "./mta_sts.ts";
import { StoredPolicies } from "./mta_sts_cache.ts";
import { HttpsPolicyFetcher } from "./mta_sts_fetch.ts";
import { TlsReporter } from "./reports/reporter.ts";

export interface DutyPorts {
  readonly clock: Clock;
  readonly random: Random;
  readonly ids: Ids;
  readonly log: Log;
  readonly resolver: Resolver;
  readonly store: EventStore;
  readonly bodies: Pick<BodyStore, "create">;
  readonly rows: Pick<OpenStore, "row" | "page">;
  readonly signer?: Pick<DkimSigner, "beginOwn">;
}

const MINUTE = 60_000;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;

/** Policy hosts on this machine are asked where hosts on it may get mail. */
export const allowsLoopback = ({ transports }: Pick<Config, "transports">): boolean =>
  [...transports.values()].some((transport) =>
    transport.type === "direct" && transport.allowLoopback
  );

export class TlsDuties {
  readonly mtaSts: MtaStsPolicies;
  readonly reporter: TlsReporter;
  readonly #ports: DutyPorts;
  #config: Config;

  constructor(ports: DutyPorts, config: Config) {
    this.#ports = ports;
    this.#config = config;
    const { clock, resolver, log, store, bodies, ids, rows, signer } = ports;
    const https = {
      clock,
      resolver,
      ca: () => this.ca,
      allowLoopback: () => allowsLoopback(this.#config),
    };
    this.mtaSts = new MtaStsPolicies({
      clock,
      resolver,
      log,
      fetcher: new HttpsPolicyFetcher(https),
      cache: new StoredPolicies({
        store,
        row: (projection, domain) => rows.row(projection, domain),
      }),
    });
    this.reporter = new TlsReporter({
      clock,
      ids,
      log,
      store,
      bodies,
      resolver,
      hostname: config.hostname,
      https: (request, signal) => requestHttps(https, request, signal),
      rows: (after, limit) => {
        try {
          return rows.page(tlsReportsProjection, after, limit);
        } catch (cause) {
          throw new StoreUnavailable("the TLS reports cannot be read", { cause });
        }
      },
      ...(signer ? { signer } : {}),
    });
  }

  /** Trust anchors in PEM for MTA-STS, where they are not those of the CA store. */
  get ca(): readonly string[] | undefined {
    return this.#config.tls.ca;
  }

  /** Whether sessions are counted for reports. */
  get reports(): boolean {
    return this.#config.tls.reports;
  }

  use(config: Config): void {
    this.#config = config;
  }

  /** Fetches that run are given up. */
  stop(): void {
    this.mtaSts.stop();
  }

  chores(): Part[] {
    const { clock, random, log } = this.#ports;
    const spread = (ms: number) => random.next() * ms;
    return [
      new Chore(clock, {
        name: "mta-sts",
        first: () => 10 * MINUTE + spread(5 * MINUTE),
        run: async (signal) => {
          const due = await this.mtaSts.refresh(signal);
          if (due > 0) log.info("MTA-STS policies were due to be fetched again", { policies: due });
          return 10 * MINUTE + spread(5 * MINUTE);
        },
      }),
      new Chore(clock, {
        name: "tls-reports",
        first: () => MINUTE + spread(9 * MINUTE),
        run: async (signal) => {
          const waiting = await this.reporter.run(signal, !this.reports);
          if (waiting) return HOUR + spread(10 * MINUTE);
          // Some time after midnight UTC, so that not all reports arrive at once: section 4.1.
          const untilMidnight = DAY - clock.now() % DAY;
          return untilMidnight + 10 * MINUTE + spread(4 * HOUR);
        },
      }),
    ];
  }
}
