/**
 * One question, one socket: UDP from a port that the system chooses at random (RFC 5452, section
 * 9.2), TCP with its length prefix (RFC 7766). Sockets are closed however it ends. Waiting ends
 * with the signal, which the caller arms with a time limit.
 */
import { createSocket } from "node:dgram";
import { Buffer } from "node:buffer";
import { createConnection, isIPv6 } from "node:net";
import type { Endpoint } from "../ports.ts";
import { isLoopback } from "./servers.ts";

/**
 * Looks at a message that came in. undefined: not the response that is waited for.
 * @throws FrameError when it is, and cannot be read
 */
export type Judge<T> = (message: Uint8Array) => T | undefined;

export interface Exchange<T> {
  readonly server: Endpoint;
  readonly query: Uint8Array;
  readonly judge: Judge<T>;
  readonly signal: AbortSignal;
}

/** The last thing that arrived from the server before the wait ended was not a response. */
export class GarbageReceived extends Error {
  override readonly name = "GarbageReceived";
}

/**
 * Sends a datagram and waits for the response. Whatever else arrives is passed over, since anybody
 * can send it: only the signal or a socket error ends the wait.
 * @throws GarbageReceived when the signal aborts after messages that could not be read
 * @throws the signal's reason, or the socket's error
 */
export function exchangeUdp<T>({ server, query, judge, signal }: Exchange<T>): Promise<T> {
  const v6 = isIPv6(server.address);
  return new Promise<T>((resolve, reject) => {
    signal.throwIfAborted();
    // A resolver on this machine is reached without a socket that the network can send to.
    const local = isLoopback(server) ? (v6 ? "::1" : "127.0.0.1") : v6 ? "::" : "0.0.0.0";
    // Asked beforehand, because binding without permission throws where nobody can catch it.
    const host = v6 ? `[${local}]` : local;
    if (Deno.permissions.querySync({ name: "net", host }).state !== "granted") {
      throw new Error(`no permission to open a UDP socket: add --allow-net=${host}`);
    }
    const socket = createSocket(v6 ? "udp6" : "udp4");
    let garbage: Error | undefined;
    const end = (act: () => void) => {
      signal.removeEventListener("abort", abort);
      socket.removeAllListeners("message");
      try {
        socket.close();
      } catch {
        // It was not open yet, or is closed already.
      }
      act();
    };
    const abort = () =>
      end(() => reject(garbage ? new GarbageReceived(garbage.message) : signal.reason));
    signal.addEventListener("abort", abort);
    socket.on("error", (error) => end(() => reject(error)));
    socket.on("message", (message, from) => {
      if (from.port !== server.port || !sameAddress(from.address, server.address)) return;
      try {
        const judged = judge(message);
        if (judged !== undefined) end(() => resolve(judged));
      } catch (error) {
        garbage = error instanceof Error ? error : new Error(String(error));
      }
    });
    socket.bind({ port: 0, address: local, exclusive: true }, () => {
      if (signal.aborted) return;
      socket.send(query, server.port, server.address, (error) => {
        if (error) end(() => reject(error));
      });
    });
  });
}

/**
 * Asks over TCP. The first message must be the response.
 * @throws GarbageReceived when it is not
 * @throws the signal's reason, or the socket's error
 */
export function exchangeTcp<T>({ server, query, judge, signal }: Exchange<T>): Promise<T> {
  return new Promise<T>((resolve, reject) => {
    signal.throwIfAborted();
    const socket = createConnection({ host: server.address, port: server.port });
    let received = Buffer.alloc(0);
    const end = (act: () => void) => {
      signal.removeEventListener("abort", abort);
      socket.removeAllListeners("data");
      socket.destroy();
      act();
    };
    const abort = () => end(() => reject(signal.reason));
    signal.addEventListener("abort", abort);
    socket.on("error", (error) => end(() => reject(error)));
    socket.on("close", () => end(() => reject(new GarbageReceived("connection closed too early"))));
    socket.on("connect", () => {
      const prefix = Buffer.alloc(2);
      prefix.writeUInt16BE(query.length);
      socket.write(Buffer.concat([prefix, query]));
    });
    socket.on("data", (chunk: Buffer) => {
      received = Buffer.concat([received, chunk]);
      if (received.length < 2) return;
      const length = received.readUInt16BE(0);
      if (received.length < 2 + length) return;
      try {
        const judged = judge(received.subarray(2, 2 + length));
        end(() =>
          judged === undefined
            ? reject(new GarbageReceived("the response is to another question"))
            : resolve(judged)
        );
      } catch (error) {
        end(() => reject(new GarbageReceived(error instanceof Error ? error.message : "garbage")));
      }
    });
  });
}

/** IPv6 addresses have more than one spelling. */
function sameAddress(a: string, b: string): boolean {
  const canonical = (address: string) =>
    isIPv6(address) ? new URL(`http://[${address.replace(/%.*/, "")}]/`).hostname : address;
  return canonical(a) === canonical(b);
}
