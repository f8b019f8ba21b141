/**
 * Finds the MTA-STS policy of a domain (RFC 8461, section 3):
 *
 *   1. The TXT record at `_mta-sts.DOMAIN` says whether there is a policy, and its id.
 *   2. A cached policy with that id is used as long as its max_age says.
 *   3. Otherwise the policy is fetched over HTTPS and kept.
 *   4. What fails leaves a cached policy that has not expired in force: an attacker who suppresses
 *      the record or the fetch changes nothing (section 10.2).
 *
 * Domains that mail goes to have their policy fetched again before it expires (`refresh`), so that
 * the protection has no gap which an attacker could wait for.
 */
import type { Clock, Log } from "../../actors/ports.ts";
import { StoreUnavailable } from "../../events/store.ts";
import { asciiName } from "../dns/names.ts";
import { DnsError, type Resolver } from "../ports.ts";
import type { CachedPolicy, PolicyCache } from "./mta_sts_cache.ts";
import type { PolicyFetcher } from "./mta_sts_fetch.ts";
import { parseStsPolicy, PolicyError, type StsPolicy } from "./mta_sts_policy.ts";
import { parseStsRecord, type StsRecord } from "./mta_sts_record.ts";
import type { MtaSts, MtaStsFinding, MtaStsUnknown } from "./requirements.ts";

export interface PolicyPorts {
  readonly clock: Pick<Clock, "now" | "monotonic">;
  readonly resolver: Resolver;
  readonly fetcher: PolicyFetcher;
  readonly cache: PolicyCache;
  readonly log: Pick<Log, "warn">;
}

/** How fetches end: what is counted. */
export const FETCH_RESULTS = [
  "ok",
  "unchanged",
  "sts-policy-fetch-error",
  "sts-policy-invalid",
  "sts-webpki-invalid",
] as const;

/** Milliseconds in which a fetch that failed is not repeated (RFC 8461, section 3.3). */
export const BACK_OFF = 5 * 60_000;
/** A policy is fetched anew after a day, or half of its life where that is shorter. */
const REFRESH_AFTER = 24 * 3_600_000;
/** Domains without mail for so long are left to expire. */
const IN_USE = 7 * 24 * 3_600_000;
/** Domains that are remembered: for use, and for failures. */
const MAX_REMEMBERED = 10_000;
/** Fetches at a time; each holds a socket for up to a minute. */
const MAX_FETCHES = 32;
/** Policies that one round of refreshing fetches. */
const MAX_ROUND = 200;

type Fetched =
  | { readonly ok: true; readonly policy: StsPolicy; readonly note?: string }
  | { readonly ok: false; readonly error: PolicyError }
  /** It was not tried to its end, by our own doing: nothing follows about the domain. */
  | { readonly ok: undefined; readonly reason: string };

export class MtaStsPolicies implements MtaSts {
  readonly #ports: PolicyPorts;
  readonly #flights = new Map<string, Promise<Fetched>>();
  /** By domain and id: monotonic time until which it is not tried again, and why. */
  readonly #failed = new Map<string, { readonly until: number; readonly error: PolicyError }>();
  /** By domain: monotonic time of the latest question. The oldest stand first. */
  readonly #used = new Map<string, number>();
  readonly #results: Record<string, number> = Object.fromEntries(
    FETCH_RESULTS.map((result) => [result, 0]),
  );
  readonly #stop = new AbortController();

  constructor(ports: PolicyPorts) {
    this.#ports = ports;
  }

  /** Fetches so far, by how they ended. */
  get results(): Readonly<Record<string, number>> {
    return this.#results;
  }

  /** Gives up fetches that run. */
  stop(): void {
    this.#stop.abort();
  }

  async find(domain: string, signal: AbortSignal): Promise<MtaStsFinding | MtaStsUnknown> {
    let cached: CachedPolicy | undefined;
    try {
      cached = this.#valid(domain);
    } catch (error) {
      if (!(error instanceof StoreUnavailable)) throw error;
      return { status: "temporary", domain, reason: error.message };
    }
    const record = await this.#record(domain, signal);
    if (record instanceof DnsError) {
      if (!cached) return { status: "temporary", domain, reason: record.message };
      return fromCache(domain, cached, `the record has no answer: ${record.message}`);
    }
    if (!record.ok) {
      return cached
        ? fromCache(domain, cached, record.why)
        : { status: "none", domain, why: record.why };
    }
    remember(this.#used, domain, this.#ports.clock.monotonic());
    if (cached?.id === record.id) return fromCache(domain, cached);
    const fetched = await this.#shared(domain, record.id, cached, signal);
    if (fetched.ok === undefined) {
      const { reason } = fetched;
      return cached ? fromCache(domain, cached, reason) : { status: "temporary", domain, reason };
    }
    if (fetched.ok) {
      const { policy: { mode, mx, maxAge }, note } = fetched;
      const why = note === undefined ? {} : { why: note };
      const { id } = record;
      return { status: "policy", domain, mode, id, mx, maxAge, from: "fetched", ...why };
    }
    const { message: why, type: failure } = fetched.error;
    if (cached) return { ...fromCache(domain, cached, why), failure };
    return { status: "error", domain, why, failure };
  }

  /**
   * Fetches the policies again that are in use and due for it, one after the other. What fails
   * leaves the cached one, and is due again the next time.
   * @returns how many were due
   */
  async refresh(signal: AbortSignal): Promise<number> {
    const { clock, cache } = this.#ports;
    const now = clock.monotonic();
    let due = 0;
    for (const [domain, at] of [...this.#used]) {
      if (signal.aborted || due >= MAX_ROUND) break;
      if (now - at > IN_USE) {
        this.#used.delete(domain);
        continue;
      }
      const cached = cache.get(domain);
      if (!cached || !this.#isDue(cached)) continue;
      due++;
      const record = await this.#record(domain, signal);
      if (record instanceof DnsError || !record.ok) continue; // gone: left to expire
      await this.#shared(domain, record.id, cached, signal);
    }
    return due;
  }

  #isDue({ fetched, maxAge }: CachedPolicy): boolean {
    const age = this.#ports.clock.now() - fetched;
    return age >= Math.min(REFRESH_AFTER, maxAge * 1_000 / 2);
  }

  /** The cached policy, unless it has expired. */
  #valid(domain: string): CachedPolicy | undefined {
    const cached = this.#ports.cache.get(domain);
    const expired = cached && this.#ports.clock.now() >= cached.fetched + cached.maxAge * 1_000;
    return expired ? undefined : cached;
  }

  async #record(domain: string, signal: AbortSignal): Promise<StsRecord | DnsError> {
    const name = asciiName(`_mta-sts.${domain}`);
    if (name === undefined) {
      return { ok: false, why: "the domain is too long to have an MTA-STS record" };
    }
    try {
      return parseStsRecord((await this.#ports.resolver.query(name, "TXT", signal)).records);
    } catch (error) {
      if (error instanceof DnsError) return error;
      throw error;
    }
  }

  /** A fetch that whoever wants it shares; one who leaves before its end disturbs no other. */
  async #shared(
    domain: string,
    id: string,
    cached: CachedPolicy | undefined,
    signal: AbortSignal,
  ): Promise<Fetched> {
    const key = `${domain} ${id}`;
    const failed = this.#failed.get(key);
    if (failed && this.#ports.clock.monotonic() < failed.until) {
      return { ok: false, error: failed.error };
    }
    let flight = this.#flights.get(key);
    if (!flight) {
      if (this.#flights.size >= MAX_FETCHES) {
        return { ok: undefined, reason: "too many policies are being fetched at a time" };
      }
      flight = this.#fetch(domain, id, cached).finally(() => this.#flights.delete(key));
      this.#flights.set(key, flight);
    }
    const left = Promise.withResolvers<Fetched>();
    const leave = () => left.resolve(CANCELED);
    if (signal.aborted) leave();
    else signal.addEventListener("abort", leave, { once: true });
    try {
      return await Promise.race([flight, left.promise]);
    } finally {
      signal.removeEventListener("abort", leave);
    }
  }

  async #fetch(domain: string, id: string, cached: CachedPolicy | undefined): Promise<Fetched> {
    const { fetcher, cache, clock, log } = this.#ports;
    const key = `${domain} ${id}`;
    let policy: StsPolicy;
    try {
      policy = parseStsPolicy(await fetcher.fetch(domain, this.#stop.signal));
    } catch (error) {
      if (!(error instanceof PolicyError)) throw error;
      // To go on without a policy because we stop would be to go on without its protection.
      if (this.#stop.signal.aborted) return CANCELED;
      this.#count(error.type);
      remember(this.#failed, key, { until: clock.monotonic() + BACK_OFF, error });
      log.warn("an MTA-STS policy cannot be had", { domain, id, why: error.message });
      return { ok: false, error };
    }
    this.#failed.delete(key);
    const same = cached !== undefined && samePolicy(cached, policy);
    this.#count(same ? "unchanged" : "ok");
    try {
      await cache.put(domain, id, policy);
    } catch (error) {
      if (!(error instanceof StoreUnavailable)) throw error;
      log.warn("an MTA-STS policy could not be kept", { domain, why: error.message });
    }
    const renamed = same && cached.id !== id;
    return {
      ok: true,
      policy,
      ...(renamed ? { note: `the id was ${cached.id}, the policy is the same` } : {}),
    };
  }

  #count(result: string): void {
    this.#results[result] = (this.#results[result] ?? 0) + 1;
  }
}

const CANCELED: Fetched = { ok: undefined, reason: "fetching the policy was canceled" };

function fromCache(
  domain: string,
  { mode, id, mx, maxAge }: CachedPolicy,
  why?: string,
): MtaStsFinding & { status: "policy" } {
  const note = why === undefined ? {} : { why: `the cached policy is in force: ${why}` };
  return { status: "policy", domain, mode, id, mx, maxAge, from: "cache", ...note };
}

const samePolicy = (a: StsPolicy, b: StsPolicy): boolean =>
  a.mode === b.mode && a.maxAge === b.maxAge && a.mx.join(" ") === b.mx.join(" ");

/** Sets a key as the newest; the oldest is forgotten when there are too many. */
function remember<V>(map: Map<string, V>, key: string, value: V): void {
  map.delete(key);
  map.set(key, value);
  if (map.size <= MAX_REMEMBERED) return;
  for (const oldest of map.keys()) {
    map.delete(oldest);
    break;
  }
}
