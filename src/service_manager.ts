/**
 * Tells systemd how the process is (sd_notify(3)): ready, reloading, stopping, and, where the unit
 * has WatchdogSec, that its event loop still turns. Without NOTIFY_SOCKET it does nothing.
 */
import type { Clock } from "../actors/ports.ts";

interface DatagramSocket {
  send(data: Uint8Array, to: { transport: "unixpacket"; path: string }): Promise<number>;
  close(): void;
}
/** Datagrams over a UNIX socket: behind --unstable-net, which `serve` is started with. */
type ListenDatagram = (options: { transport: "unixpacket"; path: string }) => DatagramSocket;

export class ServiceManager {
  readonly #clock: Clock;
  /** Milliseconds between two signs of life. */
  readonly #period: number | undefined;
  #tell: (state: string) => void = () => {};
  #cancelBeat = () => {};
  #close = () => {};

  /** @param env `NOTIFY_SOCKET` and `WATCHDOG_USEC` as systemd sets them */
  constructor(clock: Clock, env: { get(name: string): string | undefined }) {
    this.#clock = clock;
    const microseconds = Number(env.get("WATCHDOG_USEC") ?? NaN);
    // Half the time that systemd waits, as sd_watchdog_enabled(3) recommends.
    if (microseconds > 0) this.#period = microseconds / 2_000;
    const path = env.get("NOTIFY_SOCKET")?.replace(/^@/, "\0");
    const { listenDatagram } = Deno as unknown as { listenDatagram?: ListenDatagram };
    if (path && listenDatagram) this.#open(path, listenDatagram);
  }

  /** Everything runs; signs of life follow until `stopping`. */
  ready(): void {
    this.#tell("READY=1");
    this.#beat();
  }

  stopping(): void {
    this.#cancelBeat();
    this.#tell("STOPPING=1");
    this.#close();
  }

  #beat(): void {
    if (this.#period === undefined) return;
    this.#tell("WATCHDOG=1");
    this.#cancelBeat = this.#clock.timer(this.#period, () => this.#beat());
  }

  #open(path: string, listenDatagram: ListenDatagram): void {
    // A datagram needs no address of its own to be sent from, but Deno wants one to bind.
    const folder = Deno.makeTempDirSync({ prefix: "postledger-notify-" });
    const socket = listenDatagram({ transport: "unixpacket", path: `${folder}/socket` });
    let last: Promise<unknown> = Promise.resolve();
    this.#tell = (state) => {
      const datagram = new TextEncoder().encode(state);
      // One after the other: a socket that is sending refuses a second datagram.
      last = last.then(() => socket.send(datagram, { transport: "unixpacket", path }))
        .catch(() => {});
    };
    this.#close = () => {
      this.#tell = () => {};
      last.finally(() => {
        socket.close();
        Deno.removeSync(folder, { recursive: true });
      });
    };
  }
}
