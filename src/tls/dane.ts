/**
 * DANE for SMTP: which TLSA records are usable, and whether what a server presented matches them
 * (RFC 6698; RFC 7671; RFC 7672). Pure.
 *
 *   usage 3, DANE-EE   the server's certificate or key itself; names and validity are the zone's
 *                      business and are ignored (RFC 7672, section 3.1.1)
 *   usage 2, DANE-TA   a trust anchor: chain, validity and names are checked (section 3.1.2); the
 *                      anchor may be in the record alone, as "2 0 0" or "2 1 0"
 *   usages 0 and 1     PKIX: unusable with SMTP (section 3.1.3)
 *
 * Where records of one usage and selector have different digests, only those with the strongest
 * count (digest agility: RFC 7671, section 9).
 */
import { createHash } from "node:crypto";
import type { RecordData } from "../ports.ts";
import { type Certificate, parseCertificate, publicKey } from "./certificate.ts";
import { type Anchors, findPath, sameOctets } from "./chain.ts";
import { matchingName, namesOf } from "./names.ts";
import type { TlsJudgement } from "./policy.ts";

export type TlsaRecord = RecordData["TLSA"];

const FULL = 0;
const SHA256 = 1;
const SHA512 = 2;
const CERTIFICATE = 0;
const DANE_TA = 2;
const DANE_EE = 3;

/** Octets of the association data by matching type. */
const LENGTHS: Readonly<Record<number, number>> = { [SHA256]: 32, [SHA512]: 64 };

/** Why a record cannot be used; undefined when it can. */
export function unusable({ usage, selector, matching, data }: TlsaRecord): string | undefined {
  if (usage === 0 || usage === 1) return `usage ${usage} is PKIX, which SMTP does not use`;
  if (usage !== DANE_TA && usage !== DANE_EE) return `unknown usage ${usage}`;
  if (selector > 1) return `unknown selector ${selector}`;
  if (matching > SHA512) return `unknown matching type ${matching}`;
  const length = LENGTHS[matching];
  if (length !== undefined) {
    return data.length === length
      ? undefined
      : `${data.length} octets where matching type ${matching} has ${length}`;
  }
  if (selector === CERTIFICATE) return certificateOf(data) ? undefined : "not a certificate";
  return publicKey(data) ? undefined : "not a public key";
}

function certificateOf(der: Uint8Array): Certificate | undefined {
  try {
    const certificate = parseCertificate(der);
    return publicKey(certificate.spki) ? certificate : undefined;
  } catch {
    return undefined;
  }
}

/**
 * The usable records that count: of digests over the same thing, the strongest alone.
 * Full data (matching type 0) is no digest and always counts.
 */
export function effective(records: readonly TlsaRecord[]): readonly TlsaRecord[] {
  const usable = records.filter((record) => unusable(record) === undefined);
  return usable.filter((record) =>
    record.matching === FULL ||
    !usable.some((other) =>
      other.usage === record.usage && other.selector === record.selector &&
      other.matching > record.matching
    )
  );
}

/** "3 1 1 8cb0fc6c…", as in a zone file, the data cut short. */
export function recordText({ usage, selector, matching, data }: TlsaRecord): string {
  const hex = [...data.subarray(0, 8)].map((octet) => octet.toString(16).padStart(2, "0")).join("");
  return `${usage} ${selector} ${matching} ${hex}${data.length > 8 ? "…" : ""}`;
}

/**
 * Judges what a server presented.
 * @param presented the chain in DER, the server's own certificate first
 * @param records as published; the unusable are left out here
 * @param names of which a DANE-TA chain must be for one (lower case)
 * @param now epoch milliseconds
 */
export function verifyDane(
  presented: readonly Uint8Array[],
  records: readonly TlsaRecord[],
  names: readonly string[],
  now: number,
): TlsJudgement {
  const counting = effective(records);
  const [leafDer, ...others] = presented;
  const refuse = (type: (TlsJudgement & { ok: false })["type"], reason: string): TlsJudgement => ({
    ok: false,
    type,
    reason,
  });
  if (counting.length === 0) return refuse("tlsa-invalid", "no usable TLSA record");
  if (!leafDer) return refuse("validation-failure", "the host presented no certificate");
  let leaf: Certificate | undefined;
  let unread = "";
  try {
    leaf = parseCertificate(leafDer);
  } catch (error) {
    unread = error instanceof Error ? error.message : String(error);
  }
  for (const record of counting) {
    if (record.usage !== DANE_EE) continue;
    // The whole certificate can be compared even where it cannot be read.
    const selected = record.selector === CERTIFICATE ? leafDer : leaf?.spki;
    if (selected && matches(record, selected)) {
      return { ok: true, by: `TLSA ${recordText(record)}` };
    }
  }
  if (!leaf) return refuse("validation-failure", `the certificate cannot be read: ${unread}`);
  const anchors = counting.filter(({ usage }) => usage === DANE_TA);
  if (anchors.length === 0) {
    return refuse("validation-failure", "the certificate matches none of the TLSA records");
  }
  const chain = others.flatMap((der) => certificateOf(der) ?? []); // what cannot be read is no issuer
  const found = findPath(leaf, chain, trustAnchors(anchors), now);
  if (!found.ok) {
    const type = found.expired ? "certificate-expired" : "certificate-not-trusted";
    return refuse(type, found.reason);
  }
  const presentedNames = namesOf(leaf, true);
  const name = matchingName(presentedNames, names);
  if (name === undefined) {
    const shown = presentedNames.slice(0, 4).join(", ") || "no name";
    const wanted = names.join(", ");
    return refuse("certificate-host-mismatch", `the certificate is for ${shown}, not ${wanted}`);
  }
  return { ok: true, by: `TLSA ${found.anchor} for ${name}` };
}

function trustAnchors(records: readonly TlsaRecord[]): Anchors {
  const full = records.filter(({ matching }) => matching === FULL);
  return {
    matches: (certificate) => {
      const record = records.find((record) => {
        const { der, spki } = certificate;
        return matches(record, record.selector === CERTIFICATE ? der : spki);
      });
      return record && recordText(record);
    },
    certificates: full.flatMap(({ selector, data }) =>
      selector === CERTIFICATE ? certificateOf(data) ?? [] : []
    ),
    keys: full.flatMap((record) =>
      record.selector === CERTIFICATE ? [] : [{ spki: record.data, name: recordText(record) }]
    ),
  };
}

function matches({ matching, data }: TlsaRecord, selected: Uint8Array): boolean {
  if (matching === FULL) return sameOctets(data, selected);
  const digest = createHash(matching === SHA256 ? "sha256" : "sha512").update(selected).digest();
  return sameOctets(data, digest);
}
