/** A resolver over a table, for the tests of what is built on resolvers. */
import {
  type Answer,
  DnsError,
  type RecordData,
  type RecordType,
  type Resolver,
} from "../../../src/ports.ts";

type Entry = Partial<Answer<RecordType>> | DnsError;

/** Keys are "name TYPE"; a key that is missing answers `nodata`. */
export class FakeResolver implements Resolver {
  readonly asked: string[] = [];
  readonly #table: Readonly<Record<string, Entry>>;

  constructor(table: Readonly<Record<string, Entry>>) {
    this.#table = table;
  }

  query<T extends RecordType>(name: string, type: T): Promise<Answer<T>> {
    const key = `${name} ${type}`;
    this.asked.push(key);
    const entry = this.#table[key] ?? {};
    if (entry instanceof DnsError) return Promise.reject(entry);
    const records = (entry.records ?? []) as readonly RecordData[T][];
    const status = records.length > 0 ? "records" : "nodata";
    return Promise.resolve({
      status,
      cnames: [],
      ttl: 60,
      authentic: false,
      ...entry,
      records,
    });
  }
}

export const mx = (...hosts: [number, string][]): RecordData["MX"][] =>
  hosts.map(([preference, exchange]) => ({ preference, exchange }));
