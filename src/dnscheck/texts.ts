/** TXT records of a name, as text, with what can go wrong on the way. */
import { DnsError } from "../ports.ts";
import { utf8 } from "../tls/text_record.ts";
import { type CheckName, type CheckPorts, type Dnssec, dnssecOf, type Finding } from "./finding.ts";

export interface Texts {
  /** Every record, its strings joined. */
  readonly texts: readonly string[];
  /** The records as they came. */
  readonly records: readonly (readonly Uint8Array[])[];
  readonly exists: boolean;
  readonly dnssec: Dnssec;
}

/** @throws DnsError when there is no answer to rely on */
export async function textsAt({ resolver, signal }: CheckPorts, name: string): Promise<Texts> {
  const answer = await resolver.query(name, "TXT", signal);
  const texts = answer.records.flatMap((strings) => utf8(strings) ?? []);
  return {
    texts,
    records: answer.records,
    exists: answer.status !== "nxdomain",
    dnssec: dnssecOf(answer),
  };
}

/** Runs a check; no answer from the DNS is its finding. */
export async function orNoAnswer(
  check: CheckName,
  name: string,
  run: () => Promise<readonly Finding[]>,
): Promise<readonly Finding[]> {
  try {
    return await run();
  } catch (error) {
    if (!(error instanceof DnsError)) throw error;
    return [{ check, level: "error", name, found: `no answer: ${error.message}`, publish: [] }];
  }
}
