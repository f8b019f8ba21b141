/**
 * Where policies are kept: as events, `MtaStsPolicyStored` on the stream `mta-sts DOMAIN DAY`, read
 * back from their projection. A policy that the disk does not take is used once and fetched anew.
 */
import type { EventStore } from "../../actors/ports.ts";
import {
  mtaStsProjection,
  type MtaStsRow,
  policyStream,
} from "../../events/projections/mta_sts.ts";
import { StoreUnavailable, WrongVersion } from "../../events/store.ts";
import type { StsPolicy } from "./mta_sts_policy.ts";

export interface CachedPolicy extends StsPolicy {
  readonly id: string;
  /** Epoch milliseconds. */
  readonly fetched: number;
}

export interface PolicyCache {
  /** The last policy that was put, however old. @throws StoreUnavailable */
  get(domain: string): CachedPolicy | undefined;
  /** Keeps a policy that was fetched just now. @throws StoreUnavailable */
  put(domain: string, id: string, policy: StsPolicy): Promise<void>;
}

export class StoredPolicies implements PolicyCache {
  constructor(
    private readonly ports: {
      readonly store: Pick<EventStore, "append" | "version" | "dayTime">;
      readonly row: (
        projection: typeof mtaStsProjection,
        domain: string,
      ) => MtaStsRow | undefined;
    },
  ) {}

  get(domain: string): CachedPolicy | undefined {
    const row = this.#row(domain);
    if (!row) return undefined;
    const { id, mode, mx, max_age: maxAge, fetched } = row;
    return { id, mode, mx: mx === "" ? [] : mx.split(" "), maxAge, fetched };
  }

  async put(domain: string, id: string, policy: StsPolicy): Promise<void> {
    const { store } = this.ports;
    const stream = policyStream(domain, store.dayTime(), this.#row(domain));
    const { mode, mx, maxAge } = policy;
    const data = { domain, id, mode, mx: [...mx], maxAge };
    const expectedVersion = await store.version(stream);
    try {
      await store.append([{
        stream,
        expectedVersion,
        facts: [{ type: "MtaStsPolicyStored", data }],
      }]);
    } catch (cause) {
      // Somebody stored one at this very moment: it is as new as ours.
      if (!(cause instanceof WrongVersion)) throw cause;
    }
  }

  #row(domain: string): MtaStsRow | undefined {
    try {
      return this.ports.row(mtaStsProjection, domain);
    } catch (cause) {
      const why = cause instanceof Error ? cause.message : String(cause);
      throw new StoreUnavailable(`the MTA-STS policies cannot be read: ${why}`, { cause });
    }
  }
}

/** For a command that looks once: nothing is known before, and nothing after. */
export class PassingPolicies implements PolicyCache {
  readonly #kept = new Map<string, CachedPolicy>();
  constructor(private readonly now: () => number) {}

  get(domain: string): CachedPolicy | undefined {
    return this.#kept.get(domain);
  }

  put(domain: string, id: string, policy: StsPolicy): Promise<void> {
    this.#kept.set(domain, { ...policy, id, fetched: this.now() });
    return Promise.resolve();
  }
}
