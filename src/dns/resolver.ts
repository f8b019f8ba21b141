/**
 * The stub resolver: asks recursive resolvers, and is the only way to names.
 *
 * A question goes
 *   1. to the cache: positive answers for their TTL, negative ones as RFC 2308 says, SERVFAIL for
 *      a few seconds
 *   2. to an identical question that is in flight, if there is one, and shares its answer
 *   3. to each server in turn, up to two rounds, over UDP, and over TCP where that was truncated;
 *      a server that answered with a failure is not asked again
 *
 * AD counts only from servers that `trustAd` trusts with it: on the way from any other, anybody
 * could have set it (RFC 6840, section 5.8).
 */
import { randomInt } from "node:crypto";
import type { Clock } from "../../actors/ports.ts";
import { type Answer, DnsError, type Endpoint, type RecordType, type Resolver } from "../ports.ts";
import { ExpiringCache } from "./cache.ts";
import { FrameError } from "./frame.ts";
import { interpret } from "./interpret.ts";
import { asciiName } from "./names.ts";
import { Slots } from "./slots.ts";
import { formatServer, isLoopback, parseServer, systemServers } from "./servers.ts";
import { exchangeTcp, exchangeUdp, GarbageReceived } from "./transport.ts";
import { encodeQuery, type Question, readResponse, type Response } from "./wire.ts";

export interface ResolverOptions {
  readonly clock: Clock;
  /** "IP", "IP:PORT" or "[IPv6]:PORT"; the system's by default. */
  readonly servers?: readonly string[];
  /** Whose AD bit counts: "auto" (default) of loopback servers only; true, of all; false, none. */
  readonly trustAd?: "auto" | boolean;
  /** Milliseconds to wait for one server, in the first round; twice that in the second. */
  readonly timeoutMs?: number;
  /** Milliseconds for a question as a whole. */
  readonly deadlineMs?: number;
  /** Answers that are kept. */
  readonly cacheLimit?: number;
}

const ROUNDS = 2;
/** TCP takes a handshake more. */
const TCP_FACTOR = 2;
/** Seconds; RFC 2308, section 7.1 allows five minutes. */
const SERVFAIL_TTL = 5;
const CACHE_LIMIT = 10_000;
/** Sockets open at once. A process may often have no more than 1,024, and SMTP needs them too. */
const MAX_SOCKETS = 128;

type Outcome = Answer<RecordType> | DnsError;

interface Flight {
  readonly outcome: Promise<Outcome>;
  /** Askers that still wait. The last one to leave stops the search. */
  askers: number;
  readonly stop: AbortController;
}

export class StubResolver implements Resolver {
  readonly #clock: Clock;
  readonly #servers: readonly { readonly endpoint: Endpoint; readonly trusted: boolean }[];
  readonly #timeoutMs: number;
  readonly #deadlineMs: number;
  readonly #cache: ExpiringCache<Outcome>;
  readonly #flights = new Map<string, Flight>();
  readonly #sockets = new Slots(MAX_SOCKETS);

  /** @throws Error when a server is not an address, or the system's cannot be read */
  constructor(options: ResolverOptions) {
    const { servers = systemServers(), trustAd = "auto" } = options;
    this.#clock = options.clock;
    this.#servers = servers.map((text) => {
      const endpoint = parseServer(text);
      return { endpoint, trusted: trustAd === "auto" ? isLoopback(endpoint) : trustAd };
    });
    if (this.#servers.length === 0) throw new Error("dns.servers: expected at least one server");
    this.#timeoutMs = options.timeoutMs ?? 2_000;
    this.#deadlineMs = options.deadlineMs ?? 12_000;
    this.#cache = new ExpiringCache(this.#clock, options.cacheLimit ?? CACHE_LIMIT);
  }

  async query<T extends RecordType>(
    name: string,
    type: T,
    signal?: AbortSignal,
  ): Promise<Answer<T>> {
    const ascii = asciiName(name);
    if (ascii === undefined) {
      throw new DnsError("badname", `${JSON.stringify(name.slice(0, 100))} is not a domain name`);
    }
    const outcome = await this.#outcome({ name: ascii, type }, signal);
    // A stored error is thrown anew, so that every asker gets a stack of its own.
    if (outcome instanceof DnsError) {
      throw new DnsError(outcome.kind, outcome.message, outcome.extended);
    }
    return outcome as Answer<T>;
  }

  #outcome(question: Question, signal: AbortSignal | undefined): Promise<Outcome> {
    const own = localhost(question);
    if (own) return Promise.resolve(own);
    const key = `${question.name} ${question.type}`;
    const kept = this.#cache.get(key);
    if (kept) {
      const { value, left } = kept;
      const aged = value instanceof DnsError ? value : { ...value, ttl: Math.floor(left / 1_000) };
      return Promise.resolve(aged);
    }
    if (signal?.aborted) return Promise.resolve(canceled(question));
    return this.#share(key, question, signal);
  }

  /** Joins the flight of the question, or starts one. An asker that leaves disturbs no other. */
  async #share(
    key: string,
    question: Question,
    signal: AbortSignal | undefined,
  ): Promise<Outcome> {
    const flight = this.#flights.get(key) ?? this.#start(key, question);
    flight.askers++;
    const left = Promise.withResolvers<Outcome>();
    const leave = () => left.resolve(canceled(question));
    signal?.addEventListener("abort", leave);
    try {
      return await Promise.race([flight.outcome, left.promise]);
    } finally {
      signal?.removeEventListener("abort", leave);
      if (--flight.askers === 0) {
        if (this.#flights.get(key) === flight) this.#flights.delete(key);
        flight.stop.abort(canceled(question));
      }
    }
  }

  #start(key: string, question: Question): Flight {
    const stop = new AbortController();
    const search = async () => {
      const disarm = this.#clock.timer(this.#deadlineMs, () => {
        stop.abort(new DnsError("timeout", `no answer within ${this.#deadlineMs} ms`));
      });
      try {
        const outcome = await this.#search(question, stop.signal);
        const ttl = outcome instanceof DnsError
          ? (outcome.kind === "servfail" ? SERVFAIL_TTL : 0)
          : outcome.ttl;
        this.#cache.set(key, outcome, ttl * 1_000);
        return outcome;
      } finally {
        disarm();
        if (this.#flights.get(key) === flight) this.#flights.delete(key);
      }
    };
    const flight: Flight = { askers: 0, stop, outcome: Promise.resolve().then(search) };
    this.#flights.set(key, flight);
    return flight;
  }

  async #search(question: Question, signal: AbortSignal): Promise<Outcome> {
    const what = `${question.name} ${question.type}`;
    const answered = new Set<Endpoint>();
    let failure: DnsError | undefined; // a word of a server outweighs silence
    let silence: DnsError | undefined;
    for (let round = 1; round <= ROUNDS; round++) {
      for (const { endpoint, trusted } of this.#servers) {
        if (answered.has(endpoint)) continue;
        try {
          const response = await this.#ask(endpoint, question, round * this.#timeoutMs, signal);
          answered.add(endpoint);
          return interpret(question, response, trusted);
        } catch (error) {
          const cause = asDnsError(error);
          const named = new DnsError(
            cause.kind,
            `${what}: ${formatServer(endpoint)}: ${cause.message}`,
            cause.extended,
          );
          if (signal.aborted && cause === signal.reason) return failure ?? named;
          if (cause.kind === "timeout") silence ??= named;
          else failure = named;
        }
      }
    }
    return failure ?? silence ?? new DnsError("timeout", `${what}: no answer`);
  }

  /** One server, UDP and if need be TCP. Throws DnsError, or what the transport throws. */
  async #ask(
    server: Endpoint,
    question: Question,
    timeoutMs: number,
    signal: AbortSignal,
  ): Promise<Response> {
    const id = randomInt(0x10000);
    const exchange = {
      server,
      query: encodeQuery(id, question),
      judge: (message: Uint8Array) => readResponse(message, id, question),
    };
    const response = await this.#within(
      timeoutMs,
      signal,
      (limited) => exchangeUdp({ ...exchange, signal: limited }),
    );
    if (!response.truncated) return response;
    const whole = await this.#within(
      timeoutMs * TCP_FACTOR,
      signal,
      (limited) => exchangeTcp({ ...exchange, signal: limited }),
    );
    if (whole.truncated) throw new DnsError("malformed", "truncated over TCP");
    return whole;
  }

  /** Runs an exchange with a socket to itself; the time spent waiting for one is not counted. */
  #within<T>(
    ms: number,
    signal: AbortSignal,
    run: (signal: AbortSignal) => Promise<T>,
  ): Promise<T> {
    return this.#sockets.run(signal, () => this.#timed(ms, signal, run));
  }

  async #timed<T>(
    ms: number,
    signal: AbortSignal,
    run: (signal: AbortSignal) => Promise<T>,
  ): Promise<T> {
    signal.throwIfAborted();
    const limit = new AbortController();
    const pass = () => limit.abort(signal.reason);
    signal.addEventListener("abort", pass);
    const disarm = this.#clock.timer(ms, () => {
      limit.abort(new DnsError("timeout", `no response within ${ms} ms`));
    });
    try {
      return await run(limit.signal);
    } finally {
      disarm();
      signal.removeEventListener("abort", pass);
    }
  }
}

/** RFC 6761, section 6.3: these names are this machine, and nobody else is asked. */
function localhost({ name, type }: Question): Answer<RecordType> | undefined {
  if (name !== "localhost" && !name.endsWith(".localhost")) return undefined;
  const records = type === "A" ? ["127.0.0.1"] : type === "AAAA" ? ["::1"] : [];
  const status = records.length > 0 ? "records" : "nodata";
  return { status, records, cnames: [], ttl: 0, authentic: false };
}

const canceled = ({ name, type }: Question): DnsError =>
  new DnsError("canceled", `${name} ${type}: the question was given up`);

function asDnsError(error: unknown): DnsError {
  if (error instanceof DnsError) return error;
  const message = error instanceof Error ? error.message : String(error);
  if (error instanceof FrameError || error instanceof GarbageReceived) {
    return new DnsError("malformed", `unreadable response: ${message}`);
  }
  return new DnsError("timeout", `cannot be reached: ${message}`); // refused, unreachable
}
