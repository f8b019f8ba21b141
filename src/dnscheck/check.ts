/** All checks of a sending domain, one after the other in the report, at the same time in the DNS. */
import { checkDkim } from "./dkim.ts";
import { checkDmarc } from "./dmarc.ts";
import type { CheckPorts, Finding } from "./finding.ts";
import { checkMtaSts } from "./mta_sts.ts";
import { checkMx } from "./mx.ts";
import { checkReverse } from "./reverse.ts";
import { checkSpf } from "./spf.ts";
import type { Subject } from "./subject.ts";
import { checkTlsa } from "./tlsa.ts";
import { checkTlsrpt } from "./tlsrpt.ts";

const CHECKS = [
  checkSpf,
  checkDkim,
  checkDmarc,
  checkMx,
  checkMtaSts,
  checkTlsrpt,
  checkTlsa,
  checkReverse,
] as const;

/** Never throws for what the DNS or a web server does: that is a finding. */
export async function checkDomain(ports: CheckPorts, subject: Subject): Promise<Finding[]> {
  const found = await Promise.all(CHECKS.map((check) => check(ports, subject)));
  return found.flat();
}
