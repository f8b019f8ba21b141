/**
 * SmtpServer: a listener for SMTP (RFC 5321), submission (RFC 6409) and submission in TLS
 * (RFC 8314). It accepts connections within limits and gives each a session (server/session.ts).
 *
 * Where no login is asked for, anyone who can connect may send, so such a listener has a loopback
 * address. Any other asks for a login, over TLS.
 */
import { createServer, type Server, type Socket } from "node:net";
import type { BodyStore, Clock, Log, Submitter } from "../../actors/ports.ts";
import type { AccountGate } from "../accounts/gate.ts";
import type { DkimSigner } from "../dkim/signer.ts";
import { isDomain } from "./address.ts";
import { type CertificateSource, fixedCertificate, type Pem } from "./server/certificate.ts";
import { Connection } from "./server/connection.ts";
import { DEFAULT_SMTP_LIMITS, type SmtpLimits } from "./server/limits.ts";
import { isLoopback } from "./server/loopback.ts";
import type { Listener } from "./server/listener.ts";
import { Session } from "./server/session.ts";
import type { Counters, SmtpStats } from "./server/stats.ts";

export interface SmtpServerPorts {
  readonly submitter: Submitter;
  readonly bodies: BodyStore;
  readonly clock: Clock;
  readonly log: Log;
  /** Asks for a login before mail is taken; absent: none is needed. */
  readonly gate?: AccountGate;
  /** Signs what is taken; absent: nothing is signed. */
  readonly signer?: Pick<DkimSigner, "begin">;
}

export interface SmtpServerOptions {
  /** The listener's name, as in the config. */
  readonly name: string;
  /** Our host name, for the greeting and the Received field. */
  readonly hostname: string;
  /** Without a gate, a loopback address. */
  readonly address: string;
  /** 0 takes any free port. */
  readonly port: number;
  /** `smtp` and `submission` offer STARTTLS when there is a key; `submissions` is TLS at once. */
  readonly protocol: "smtp" | "submission" | "submissions";
  /** A certificate chain and key that stay, or where to get the ones of the moment. */
  readonly tls?: Pem | CertificateSource;
  readonly limits?: Partial<SmtpLimits>;
}

export class SmtpServer {
  readonly #listener: Listener;
  readonly #options: SmtpServerOptions;
  readonly #server: Server;
  readonly #sessions = new Map<Connection, Session>();
  readonly #perAddress = new Map<string, number>();
  readonly #counters: Counters = {
    connectionsAccepted: 0,
    connectionsRefused: 0,
    messagesAccepted: 0,
    messagesRefused: 0,
    tlsFailures: 0,
  };
  /** Resolves when the last session is gone; set while the server stops. */
  #onEmpty: (() => void) | undefined;

  /** @throws Error when the options cannot be served: address, key or certificate */
  constructor(ports: SmtpServerPorts, options: SmtpServerOptions) {
    const { name, address, protocol, tls, hostname } = options;
    const loopback = isLoopback(address);
    if (!loopback && !ports.gate) {
      throw new Error(
        `listener ${name}: ${address} is not a loopback address; without authentication only ` +
          "127.0.0.0/8 and ::1 are served",
      );
    }
    if (!isDomain(hostname)) {
      throw new Error(`listener ${name}: the host name ${hostname} is not a domain`);
    }
    if (protocol === "submissions" && !tls) {
      throw new Error(`listener ${name}: protocol submissions needs a certificate and its key`);
    }
    if (!loopback && !tls) {
      throw new Error(`listener ${name}: a login needs TLS: a certificate and its key`);
    }
    this.#options = options;
    this.#listener = {
      ...ports,
      gate: ports.gate,
      loopback,
      name,
      hostname,
      limits: { ...DEFAULT_SMTP_LIMITS, ...options.limits },
      implicitTls: protocol === "submissions",
      tls: tls && ("cert" in tls ? fixedCertificate(tls) : tls),
      counters: this.#counters,
    };
    // Half-open: a client may close its side behind its last command, and still gets the replies.
    this.#server = createServer({ allowHalfOpen: true }, (socket) => this.#accept(socket));
  }

  /**
   * Starts to listen.
   * @throws Error naming listener and address when that fails
   */
  listen(): Promise<{ readonly address: string; readonly port: number }> {
    const { name, address, port } = this.#options;
    const { log } = this.#listener;
    return new Promise((resolve, reject) => {
      const failed = (error: Error) => {
        reject(
          new Error(`listener ${name}: cannot listen on ${address}:${port}: ${error.message}`),
        );
      };
      this.#server.once("error", failed);
      this.#server.listen({ host: address.replace(/^\[(.*)\]$/, "$1"), port, backlog: 511 }, () => {
        this.#server.off("error", failed);
        // Accepting failed (no file descriptors left, say): those who are connected go on.
        this.#server.on("error", (error) => {
          log.error("accepting a connection failed", { listener: name, why: error.message });
        });
        const bound = this.#server.address();
        if (bound === null || typeof bound === "string") {
          return failed(new Error("it has no address"));
        }
        resolve({ address: bound.address, port: bound.port });
      });
    });
  }

  /**
   * Stops: no new connections; clients that wait get `421 4.3.2`; content that is under way may
   * end within the grace period, after which its connection is cut (nothing of it was accepted).
   * @param graceMs milliseconds
   */
  async close(graceMs: number): Promise<void> {
    const stopped = new Promise<void>((resolve) => this.#server.close(() => resolve()));
    for (const session of this.#sessions.values()) session.stop();
    if (this.#sessions.size > 0) {
      const empty = new Promise<void>((resolve) => this.#onEmpty = resolve);
      const cancel = this.#listener.clock.timer(graceMs, () => {
        for (const connection of [...this.#sessions.keys()]) connection.destroy();
      });
      await empty;
      cancel();
    }
    await stopped;
  }

  stats(): SmtpStats {
    return { ...this.#counters, connections: this.#sessions.size };
  }

  #accept(socket: Socket): void {
    const { clock, limits, hostname } = this.#listener;
    const connection = new Connection(socket, clock, limits);
    const { address } = connection.peer;
    const open = this.#perAddress.get(address) ?? 0;
    const full = this.#sessions.size >= limits.connections;
    if (full || open >= limits.connectionsPerAddress) {
      this.#counters.connectionsRefused++;
      const whose = full ? "" : " from your address";
      // Cut right behind the reply: who floods us shall not make us wait, nor begin TLS.
      if (this.#listener.implicitTls) return connection.destroy();
      const text = `421 4.7.0 ${hostname} has too many connections${whose}, try again later\r\n`;
      socket.end(text, () => connection.destroy());
      return;
    }
    this.#counters.connectionsAccepted++;
    this.#perAddress.set(address, open + 1);
    const session = new Session(this.#listener, connection);
    this.#sessions.set(connection, session);
    // A session may outlive its connection: a message that is being written is not given up.
    Promise.all([connection.closed, session.run()]).then(() => this.#gone(connection));
  }

  #gone(connection: Connection): void {
    this.#sessions.delete(connection);
    const { address } = connection.peer;
    const open = this.#perAddress.get(address)! - 1;
    if (open > 0) this.#perAddress.set(address, open);
    else this.#perAddress.delete(address);
    if (this.#sessions.size === 0) this.#onEmpty?.();
  }
}
