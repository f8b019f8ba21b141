/**
 * A session judged by its CA and the name in its certificate, as MTA-STS asks for it (RFC 8461,
 * sections 4.1 and 4.2): a chain that the CA store trusts, and the host among the dNSNames.
 */
import type { TlsSession } from "../ports.ts";
import { parseCertificate } from "./certificate.ts";
import { matchingName, namesOf } from "./names.ts";
import type { TlsJudgement } from "./policy.ts";

/** @param host name of the MX host, lower case */
export function verifyPkix(session: TlsSession, host: string): TlsJudgement {
  const [leaf] = session.chain;
  if (!leaf) {
    return { ok: false, type: "validation-failure", reason: "the host presented no certificate" };
  }
  if (!session.chainTrusted) {
    const reason = session.chainError ?? "its chain is not trusted";
    const type = /expired/i.test(reason) ? "certificate-expired" : "certificate-not-trusted";
    return { ok: false, type, reason };
  }
  let names: readonly string[];
  try {
    names = namesOf(parseCertificate(leaf), false);
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error);
    return { ok: false, type: "validation-failure", reason: `it cannot be read: ${why}` };
  }
  if (matchingName(names, [host]) === undefined) {
    const shown = names.slice(0, 4).join(", ") || "no name";
    const reason = `it is for ${shown}, not ${host}`;
    return { ok: false, type: "certificate-host-mismatch", reason };
  }
  return { ok: true, by: `CA store, for ${host}` };
}
