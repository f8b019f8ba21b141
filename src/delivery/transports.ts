/**
 * The Delivery port: makes an attempt over the transport that the route chose.
 */
import type { Delivery, DeliveryJob, Findings, Outcome } from "../../actors/ports.ts";
import type { TransportConfig } from "../config/types.ts";
import { unsafeEnvelope } from "../smtp/envelope.ts";
import { deliverDirect, type DirectPorts } from "./direct.ts";
import { deliverSmarthost } from "./smarthost.ts";

/** What a reload of the configuration may change. */
export interface DeliverySettings {
  /** Our name in EHLO, and the one at which direct delivery sees a loop. */
  readonly hostname: string;
  readonly transports: ReadonlyMap<string, TransportConfig>;
}

export class Transports implements Delivery {
  readonly #ports: Omit<DirectPorts, "hostname">;
  #settings: DeliverySettings;

  constructor(ports: Omit<DirectPorts, "hostname">, settings: DeliverySettings) {
    this.#ports = ports;
    this.#settings = settings;
  }

  /** Attempts that start from now on use these; running ones end with what they began with. */
  reload(settings: DeliverySettings): void {
    this.#settings = settings;
  }

  async attempt(job: DeliveryJob, findings: Findings, signal: AbortSignal): Promise<Outcome> {
    if (signal.aborted) {
      return { kind: "failed", permanent: false, result: "canceled", reason: "canceled" };
    }
    const { mailFrom, rcptTo, dsn, size, has8bit, smtputf8, requireTLS } = job.message;
    const recipients = [{ rcptTo, dsn }];
    const unsafe = unsafeEnvelope({
      mailFrom,
      recipients,
      size,
      has8bit,
      smtputf8,
      requireTLS,
    });
    if (unsafe) {
      const { error: reason, enhanced } = unsafe;
      return { kind: "failed", permanent: true, result: "permerror", reason, enhanced };
    }
    const { hostname, transports } = this.#settings;
    const name = job.transport.transport;
    const config = transports.get(name);
    if (!config) {
      // A reload removed it after the route was chosen; the next attempt is routed anew.
      const reason = `the configuration has no transport "${name}" (any more)`;
      return { kind: "failed", permanent: false, result: "error", reason, enhanced: "4.3.5" };
    }
    const ports = { ...this.#ports, hostname };
    switch (config.type) {
      case "direct":
        return await deliverDirect(ports, config, job, findings, signal);
      case "smtp":
        return await deliverSmarthost(ports, config, job, findings, signal);
    }
  }
}
