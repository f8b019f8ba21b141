/**
 * The virtual DNS: zones that operators of the world change, and name servers that fail.
 * The process under test sees it through the Resolver port.
 */
import { type Answer, DnsError, type RecordData, type RecordType } from "../../src/ports.ts";
import type { Resolver } from "../../src/ports.ts";
import type { Process } from "./process.ts";
import type { Dice } from "./random.ts";

export type Name = { readonly [T in RecordType]?: readonly RecordData[T][] };

/** What the servers of a domain do: answer, say SERVFAIL, or nothing until the resolver gives up. */
export type Outage = "none" | "servfail" | "timeout";

const CNAMES_FOLLOWED = 8;

export class Dns {
  readonly #names = new Map<string, Name>();
  readonly #outages = new Map<string, Outage>();

  constructor(readonly dice: Dice) {}

  set(name: string, records: Name): void {
    this.#names.set(name, records);
  }

  remove(name: string): void {
    this.#names.delete(name);
  }

  /** For a name and all below it. */
  outage(domain: string, outage: Outage): void {
    this.#outages.set(domain, outage);
  }

  resolver(process: Process): Resolver {
    return {
      query: <T extends RecordType>(name: string, type: T, signal?: AbortSignal) =>
        this.#query(process, name, type, signal),
    };
  }

  #query<T extends RecordType>(
    process: Process,
    name: string,
    type: T,
    signal?: AbortSignal,
  ): Promise<Answer<T>> {
    const outage = this.#outageOf(name);
    const latency = outage === "timeout" ? 15_000 : this.dice.between(0.2, 120);
    const answer = process.call(`DNS ${type} ${name}`, latency, () => {
      if (outage === "servfail") throw new DnsError("servfail", `${name}: SERVFAIL`);
      if (outage === "timeout") throw new DnsError("timeout", `${name}: no answer`);
      return this.#answer(name, type);
    });
    if (!signal) return answer;
    return Promise.race([
      answer,
      new Promise<never>((_, reject) => {
        const canceled = () => reject(new DnsError("canceled", `${name}: the query was aborted`));
        if (signal.aborted) canceled();
        else signal.addEventListener("abort", canceled, { once: true });
      }),
    ]);
  }

  #answer<T extends RecordType>(name: string, type: T): Answer<T> {
    const cnames: string[] = [];
    let at = name;
    for (;;) {
      const found = this.#names.get(at);
      const target = found?.CNAME?.[0];
      if (target === undefined || type === "CNAME") {
        const records = (found?.[type] ?? []) as readonly RecordData[T][];
        const status = !found ? "nxdomain" : records.length === 0 ? "nodata" : "records";
        return { status, records, cnames, ttl: 300, authentic: false };
      }
      cnames.push(target);
      if (cnames.length > CNAMES_FOLLOWED) throw new DnsError("servfail", `${name}: CNAME loop`);
      at = target;
    }
  }

  #outageOf(name: string): Outage {
    for (const [domain, outage] of this.#outages) {
      if (name === domain || name.endsWith(`.${domain}`)) return outage;
    }
    return "none";
  }
}
