/**
 * A small Internet for the delivery tests: names in a table, addresses of the documentation range
 * mapped to scripted servers on loopback, and a notebook of what was found in which order.
 */
import type { DeliveryJob, Finding, Findings, Outcome } from "../../../actors/ports.ts";
import type { EventData } from "../../../events/catalogue.ts";
import type { TransportConfig } from "../../../src/config/types.ts";
import { SocketDialer } from "../../../src/delivery/dialer.ts";
import { type TransportPorts, Transports } from "../../../src/delivery/transports.ts";
import {
  type Answer,
  type Connection,
  type Dialer,
  DialError,
  DnsError,
  type Endpoint,
  type RecordData,
  type RecordType,
  type Resolver,
} from "../../../src/ports.ts";
import type { Timeouts } from "../../../src/smtp/timeouts.ts";
import { Sessions } from "../../../src/smtp/sessions.ts";
import { realClock } from "../smtp/harness.ts";
import { type Script, ScriptedServer } from "../smtp/scripted_server.ts";
import { BODIES, jobOf } from "./job.ts";

type Records = { [T in RecordType]?: RecordData[T][] };

export class World implements Resolver, Dialer, Findings {
  /** By name; "servfail" makes every question for it fail. */
  readonly names = new Map<string, Records | "servfail">();
  readonly servers = new Map<string, ScriptedServer>();
  /** Addresses that never answer. */
  readonly silent = new Set<string>();
  /** What happened, in order: "dial A", "note TYPE", "flush". */
  readonly diary: string[] = [];
  readonly findings: Finding[] = [];
  readonly sessions = new Sessions(realClock);
  readonly transports: Transports;
  #dialer = new SocketDialer();

  constructor(
    transports: TransportConfig[],
    hostname = "us.example",
    timeouts: Partial<Timeouts> = {},
    more: Pick<TransportPorts, "secrets" | "socks"> = {},
  ) {
    const ports = {
      clock: realClock,
      random: { next: () => 0.5 },
      dialer: this,
      resolver: this,
      sessions: this.sessions,
      bodies: BODIES,
      timeouts,
      dialLimits: { connect: 50 },
      ...more,
    };
    this.transports = new Transports(ports, {
      hostname,
      transports: new Map(transports.map((transport) => [transport.name, transport])),
    });
  }

  /** A host with one address, and a server behind it. */
  async host(name: string, address: string, script?: Script): Promise<ScriptedServer> {
    this.names.set(name, { A: [address] });
    return await this.serve(address, script);
  }

  async serve(address: string, script: Script = {}): Promise<ScriptedServer> {
    const server = await ScriptedServer.start(script);
    this.servers.set(address, server);
    return server;
  }

  domain(name: string, ...hosts: [number, string][]): void {
    const MX = hosts.map(([preference, exchange]) => ({ preference, exchange }));
    this.names.set(name, { MX });
  }

  async stop(): Promise<void> {
    await this.sessions.close();
    for (const server of this.servers.values()) await server.stop();
  }

  query<T extends RecordType>(name: string, type: T): Promise<Answer<T>> {
    const entry = this.names.get(name);
    if (entry === "servfail") return Promise.reject(new DnsError("servfail", `${name}: SERVFAIL`));
    const records = (entry?.[type] ?? []) as readonly RecordData[T][];
    const status = records.length > 0 ? "records" : entry ? "nodata" : "nxdomain";
    return Promise.resolve({ status, records, cnames: [], ttl: 60, authentic: false });
  }

  connect(
    target: Endpoint & { readonly localAddress?: string },
    signal: AbortSignal,
  ): Promise<Connection> {
    this.diary.push(`dial ${target.address}`);
    if (this.silent.has(target.address)) {
      return new Promise((_, reject) => {
        signal.addEventListener("abort", () => reject(new DialError("canceled", "gave up")));
      });
    }
    const server = this.servers.get(target.address);
    if (!server) return Promise.reject(new DialError("refused", "connection refused"));
    return this.#dialer.connect(
      { ...target, address: "127.0.0.1", port: server.port },
      signal,
    );
  }

  note(finding: Finding): void {
    this.findings.push(finding);
    this.diary.push(`note ${finding.type}`);
  }

  flush(): Promise<void> {
    this.diary.push("flush");
    return Promise.resolve();
  }

  get tried(): EventData<"HostTried">[] {
    return this.findings.flatMap((one) => one.type === "HostTried" ? [one.data] : []);
  }

  /** Nothing is settled early with one message. */
  settle(): Promise<void> {
    throw new Error("settled before the attempt was over");
  }

  async attempt(
    transport: string,
    rcptTo: string,
    changes: Partial<EventData<"Enqueued">> = {},
    signal = new AbortController().signal,
  ): Promise<Outcome> {
    const job = this.job(transport, rcptTo, changes);
    const [outcome] = await this.transports.attempt([job], [this], signal);
    return outcome!;
  }

  job(
    transport: string,
    rcptTo: string,
    changes: Partial<EventData<"Enqueued">> = {},
  ): DeliveryJob {
    return jobOf({
      transport: { transport, type: "direct", because: { kind: "default" } },
      message: { rcptTo, ...changes },
    });
  }
}

export const DIRECT: TransportConfig = {
  type: "direct",
  name: "direct",
  port: 25,
  ipFamily: "any",
  allowLoopback: false,
};

export function failure(outcome: Outcome): Extract<Outcome, { kind: "failed" }> {
  if (outcome.kind !== "failed") throw new Error("the message was delivered");
  return outcome;
}
