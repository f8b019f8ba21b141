/** Resolvers over servers that a test scripts, and a clock that it can move. */
import assert from "node:assert/strict";
// @ts-types="@types/dns-packet"
import type { Answer as PacketAnswer } from "dns-packet";
import type { Clock } from "../../../actors/ports.ts";
import { type ResolverOptions, StubResolver } from "../../../src/dns/resolver.ts";
import { DnsError } from "../../../src/ports.ts";
import { DnsServer, type Handler, reply } from "./dns_server.ts";

/** Real time that can be moved on. */
export class MovingClock implements Clock {
  ahead = 0;
  armed = 0;
  now = () => Date.now() + this.ahead;
  monotonic = () => performance.now() + this.ahead;
  timer = (ms: number, run: () => void) => {
    this.armed++;
    let open = true;
    const close = () => {
      if (open) this.armed--;
      open = false;
    };
    const id = setTimeout(() => {
      close();
      run();
    }, ms);
    return () => {
      close();
      clearTimeout(id);
    };
  };
}

const servers: DnsServer[] = [];

export async function serve(handler: Handler): Promise<DnsServer> {
  const server = await DnsServer.start(handler);
  servers.push(server);
  return server;
}

/** A resolver that asks these servers, with limits fit for tests. */
export function resolverFor(
  asked: readonly DnsServer[],
  options: Partial<ResolverOptions> = {},
): { resolver: StubResolver; clock: MovingClock } {
  const clock = new MovingClock();
  const names = asked.map((server) => server.name);
  const limits = { timeoutMs: 40, deadlineMs: 1_000 };
  return { clock, resolver: new StubResolver({ clock, servers: names, ...limits, ...options }) };
}

export async function one(handler: Handler, options: Partial<ResolverOptions> = {}) {
  const server = await serve(handler);
  return { server, ...resolverFor([server], options) };
}

export const a = (name: string, data: string, ttl = 300): PacketAnswer => ({
  type: "A",
  name,
  ttl,
  data,
});
export const alias = (name: string, data: string, ttl = 300): PacketAnswer => ({
  type: "CNAME",
  name,
  ttl,
  data,
});
export const answering = (...records: PacketAnswer[]): Handler => (asked) => reply(asked, records);

export async function failure(promise: Promise<unknown>): Promise<DnsError> {
  const error = await promise.then(() => undefined, (error: unknown) => error);
  assert.ok(error instanceof DnsError, `expected a DnsError, got ${error}`);
  return error;
}

export async function stopServers(): Promise<void> {
  await Promise.all(servers.splice(0).map((server) => server.stop()));
}
