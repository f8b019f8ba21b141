/**
 * The doors: the listeners of the configuration in force, as one part of the supervision tree.
 * Each is restarted alone when it fails (tree.ts); all are opened anew when a reload changes them.
 */
import type { BodyStore, Clock, Log, Submitter } from "../actors/ports.ts";
import type { Branch, Part } from "../actors/supervision.ts";
import type { AccountDirectory } from "./accounts/directory.ts";
import type { AccountGate } from "./accounts/gate.ts";
import type { Config, HttpListenerConfig, SmtpListenerConfig } from "./config/types.ts";
import type { DkimSigner } from "./dkim/signer.ts";
import type { AddressFile } from "./http/address_file.ts";
import { type HttpPorts, HttpServer } from "./http/server.ts";
import { SmtpServer } from "./smtp/server.ts";
import { CertificateFiles } from "./smtp/server/certificate.ts";
import { doorsBranch } from "./tree.ts";

/** Milliseconds that running attempts and sessions have to end when the queue stops. */
export const STOP_GRACE = 30_000;

/** Where a listener listens, as it is. */
export interface Bound {
  readonly name: string;
  readonly protocol: string;
  readonly address: string;
  readonly port: number;
}

export interface DoorPorts {
  readonly submitter: Submitter;
  readonly bodies: BodyStore;
  readonly clock: Clock;
  readonly log: Log;
  readonly signer: DkimSigner;
  readonly gate: AccountGate;
  readonly accounts: AccountDirectory;
  readonly addressFile: AddressFile;
  /** What an HTTP listener answers from. */
  readonly http: (config: HttpListenerConfig) => HttpPorts;
}

export class Doors implements Part {
  readonly name = "doors";
  readonly #config: () => Config;
  readonly #ports: DoorPorts;
  readonly #bound = new Map<string, Bound>();
  readonly #smtp = new Map<string, SmtpServer>();
  #branch: Branch | undefined;
  #failed: (cause: unknown) => void = () => {};

  /** @param config the configuration in force */
  constructor(config: () => Config, ports: DoorPorts) {
    this.#config = config;
    this.#ports = ports;
  }

  get addresses(): Bound[] {
    return [...this.#bound.values()];
  }

  /** SMTP clients connected now. */
  get connections(): number {
    let connections = 0;
    for (const server of this.#smtp.values()) connections += server.stats().connections;
    return connections;
  }

  async start(failed: (cause: unknown) => void): Promise<void> {
    this.#failed = failed;
    const parts = this.#config().listeners.map((listener) =>
      listener.protocol === "http" ? this.#httpDoor(listener) : this.#smtpDoor(listener)
    );
    this.#branch = doorsBranch(parts, this.#ports);
    await this.#branch.start(failed);
  }

  async stop(): Promise<void> {
    await this.#branch?.stop();
    this.#branch = undefined;
  }

  async reopen(): Promise<void> {
    await this.stop();
    await this.start(this.#failed);
  }

  #smtpDoor(config: SmtpListenerConfig): Part {
    const { submitter, bodies, clock, log, signer, accounts } = this.#ports;
    const name = `smtp ${config.name}`;
    return {
      name,
      start: async () => {
        const { limits, certificate, auth } = config;
        const gate = auth === "required" ? this.#ports.gate : undefined;
        if (gate && accounts.size === 0) {
          log.warn("mail takes a login here, and there is no account; add one", {
            listener: config.name,
            command: "deno task account add NAME --address ADDRESS",
          });
        }
        const ports = { submitter, bodies, clock, log, signer, ...(gate && { gate }) };
        const server = new SmtpServer(ports, {
          name: config.name,
          hostname: this.#config().hostname,
          address: config.listen.address,
          port: config.listen.port,
          protocol: config.protocol,
          ...(certificate ? { tls: new CertificateFiles(certificate, { clock, log }) } : {}),
          limits: {
            messageSize: limits.maxSize,
            recipients: limits.maxRecipients,
            connections: limits.maxConnections,
            connectionsPerAddress: limits.maxConnectionsPerAddress,
            unproductive: limits.maxIdleCommands,
            idle: limits.idleTimeout,
            hold: limits.maxHold,
          },
        });
        const at = await server.listen();
        this.#smtp.set(name, server);
        this.#bound.set(name, { name: config.name, protocol: config.protocol, ...at });
      },
      stop: async () => {
        const server = this.#smtp.get(name);
        this.#smtp.delete(name);
        this.#bound.delete(name);
        await server?.close(STOP_GRACE);
      },
    };
  }

  #httpDoor(config: HttpListenerConfig): Part {
    const { addressFile, http } = this.#ports;
    const name = `http ${config.name}`;
    let server: HttpServer | undefined;
    return {
      name,
      start: () => {
        server = new HttpServer(config.listen, http(config));
        const at = server.listen();
        this.#bound.set(name, { name: config.name, protocol: config.protocol, ...at });
        addressFile.listening(name, at);
        return Promise.resolve();
      },
      stop: async () => {
        this.#bound.delete(name);
        addressFile.closed(name);
        await server?.close();
      },
    };
  }
}
