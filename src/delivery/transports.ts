/**
 * The Delivery port: makes an attempt over the transport that the route chose. What a transport
 * adds to a session (its login, its proxy, the addresses it dials from) is put together here, once
 * per configuration.
 */
import type {
  Delivery,
  DeliveryJob,
  Findings,
  Outcome,
  TransportChoice,
} from "../../actors/ports.ts";
import type { SocksTransportConfig, TransportConfig } from "../config/types.ts";
import type { Dialer } from "../ports.ts";
import { unsafeEnvelope } from "../smtp/envelope.ts";
import { loginOf, type SecretReader, systemSecrets } from "./credentials.ts";
import { deliverDirect, type DirectPorts } from "./direct.ts";
import { LocalDialer } from "./local_dialer.ts";
import { deliverSmarthost } from "./smarthost.ts";
import { Party } from "./party.ts";
import { formatEndpoint, SocksDialer, type SocksProxy } from "./socks_dialer.ts";
import type { Way } from "./submit.ts";

/** What a reload of the configuration may change. */
export interface DeliverySettings {
  /** Our name in EHLO, and the one at which direct delivery sees a loop. */
  readonly hostname: string;
  readonly transports: ReadonlyMap<string, TransportConfig>;
}

export interface TransportPorts extends Omit<DirectPorts, "hostname" | "way"> {
  /** Makes the dialer through a proxy; over real sockets by default. */
  readonly socks?: (proxy: SocksProxy) => Dialer;
  /** Messages that the configuration allows over one session at a destination. */
  readonly perConnection?: (choice: TransportChoice, rcptTo: string) => number | undefined;
  /** Reads passwords and tokens; by default from the system. */
  readonly secrets?: SecretReader;
}

/** What a transport replaces of the ports. */
type Ports = Pick<DirectPorts, "dialer" | "hostname" | "ourselves"> & { readonly way?: Way };

export class Transports implements Delivery {
  readonly #ports: TransportPorts;
  #settings: DeliverySettings;
  /** Counts configurations: sessions of one are not shared with the next. */
  #generation = 0;
  readonly #prepared = new Map<TransportConfig, Ports>();

  constructor(ports: TransportPorts, settings: DeliverySettings) {
    this.#ports = ports;
    this.#settings = settings;
  }

  /** Attempts that start from now on use these; running ones end with what they began with. */
  reload(settings: DeliverySettings): void {
    this.#settings = settings;
    this.#generation++;
    this.#prepared.clear();
  }

  async attempt(
    jobs: readonly DeliveryJob[],
    findings: readonly Findings[],
    signal: AbortSignal,
  ): Promise<readonly Outcome[]> {
    if (signal.aborted) {
      const reason = "canceled";
      return jobs.map(() => ({ kind: "failed", permanent: false, result: "canceled", reason }));
    }
    const outcomes: (Outcome | undefined)[] = jobs.map(unsafe);
    const sendable = outcomes.flatMap((outcome, n) => outcome ? [] : [n]);
    if (sendable.length > 0) {
      const all = sendable.map((n) => new Party(jobs[n]!, findings[n]!));
      const sent = await this.#deliver(all, signal);
      for (const [at, n] of sendable.entries()) outcomes[n] = sent[at]!;
    }
    return outcomes.map((outcome) => outcome!);
  }

  async #deliver(parties: readonly Party[], signal: AbortSignal): Promise<readonly Outcome[]> {
    const [{ job }] = parties as readonly [Party];
    const name = job.transport.transport;
    const config = this.#settings.transports.get(name);
    if (!config) {
      // A reload removed it after the route was chosen; the next attempt is routed anew.
      const reason = `the configuration has no transport "${name}" (any more)`;
      const enhanced = "4.3.5";
      return parties.map(() => ({
        kind: "failed",
        permanent: false,
        result: "error",
        reason,
        enhanced,
      }));
    }
    let prepared = this.#prepared.get(config);
    if (!prepared) this.#prepared.set(config, prepared = this.#prepare(config));
    const most = this.#ports.perConnection?.(job.transport, job.message.rcptTo);
    const ports = {
      ...this.#ports,
      ...prepared,
      ...(most === undefined ? {} : { messagesPerConnection: most }),
    };
    switch (config.type) {
      case "direct":
        return await deliverDirect(ports, config, parties, signal);
      case "socks": {
        const outcomes = await deliverDirect(ports, config, parties, signal);
        return outcomes.map((outcome) =>
          outcome.kind === "delivered" || outcome.permanent
            ? outcome
            : { ...outcome, reason: `transport "${name}": ${outcome.reason}` }
        );
      }
      default:
        return await deliverSmarthost(ports, config, parties, signal);
    }
  }

  #prepare(config: TransportConfig): Ports {
    const { clock, secrets = systemSecrets } = this.#ports;
    const { hostname } = this.#settings;
    const { name, localAddresses } = config;
    const dialer = localAddresses
      ? new LocalDialer(this.#ports.dialer, localAddresses)
      : this.#ports.dialer;
    const key = `${name}#${this.#generation}`;
    switch (config.type) {
      case "direct":
        return { hostname, dialer, ...(localAddresses ? { way: { key } } : {}) };
      case "socks":
        return this.#proxied(config, key);
      default: {
        const { type, certificate, auth } = config;
        const way: Way = {
          key,
          ...(type === "submissions" ? { implicitTls: true } : {}),
          ...(certificate
            ? { certificate: { cert: certificate.cert, key: certificate.key.reveal() } }
            : {}),
          ...(auth ? { login: loginOf(auth, config, clock, secrets) } : {}),
        };
        return { hostname, dialer, way };
      }
    }
  }

  #proxied(config: SocksTransportConfig, key: string): Ports {
    const { proxy, username, password, remoteHostname, localAddresses } = config;
    const local = localAddresses?.[proxy.address.includes(":") ? "ipv6" : "ipv4"];
    const { hostname } = this.#settings;
    const { socks = (proxy) => new SocksDialer(proxy) } = this.#ports;
    return {
      // A host that is known by the proxy's name is ourselves, and so is one with our own.
      hostname: remoteHostname ?? hostname,
      ourselves: [hostname],
      dialer: socks({
        ...proxy,
        ...(username === undefined ? {} : { username }),
        ...(password === undefined ? {} : { password }),
        ...(local === undefined ? {} : { localAddress: local }),
      }),
      way: { key, proxy: formatEndpoint(proxy) },
    };
  }
}

/** The failure of a message whose addresses cannot be put in a command. */
function unsafe({ message }: DeliveryJob): Outcome | undefined {
  const { rcptTo, dsn } = message;
  const found = unsafeEnvelope({ ...message, recipients: [{ rcptTo, dsn }] });
  if (!found) return undefined;
  const { error: reason, enhanced } = found;
  return { kind: "failed", permanent: true, result: "permerror", reason, enhanced };
}
