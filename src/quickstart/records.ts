/** Every DNS record that a sending domain should publish, as lines of a zone file. */
import { dkimRecord, dkimRecordName } from "../dkim/keys.ts";
import { dmarcRecord } from "../dnscheck/dmarc.ts";
import { stsLines } from "../dnscheck/mta_sts.ts";
import { spfFor } from "../dnscheck/spf.ts";
import type { Subject } from "../dnscheck/subject.ts";
import { tlsrptRecord } from "../dnscheck/tlsrpt.ts";
import { addressLine, mxLine, ptrLine, tlsaLine, txtLine } from "../dnscheck/zone.ts";
import { tlsaOf } from "../tls/host_key.ts";

const SMTP = 25;

export interface Section {
  readonly title: string;
  /** Records and comments. */
  readonly lines: readonly string[];
}

export interface Published {
  readonly subject: Subject;
  /** Where reports go. */
  readonly address: string;
  /** The host that takes mail for the domain. */
  readonly mx: string;
  /** SHA-256 over the SubjectPublicKeyInfo of our host keys: the one in use, then the spare. */
  readonly hostKeys: readonly Uint8Array[];
  /** The policy of MTA-STS. */
  readonly policy: string;
}

export function recordsFor(published: Published): Section[] {
  const { subject, address, mx, policy } = published;
  const { domain, hostname, addresses, keys } = subject;
  return [
    { title: "addresses of this host", lines: hostLines(subject) },
    {
      title: "who takes mail for the domain",
      lines: [
        mxLine(domain, 10, mx),
        `; Postledger sends and does not receive: a server on ${mx} has to take mail at port 25`,
      ],
    },
    {
      title: "SPF",
      lines: [
        txtLine(domain, spfFor(addresses, hostname)),
        ...names(subject).filter((name) => name !== domain).map((name) =>
          txtLine(name, spfFor(addresses.filter((one) => one.hostname === name), name))
        ),
        ...[...subject.unknowable, ...subject.notes].map((words) => `; ${words}`),
      ],
    },
    {
      title: "DKIM",
      lines: keys.map(({ selector, key }) =>
        txtLine(dkimRecordName(selector, domain), dkimRecord(key))
      ),
    },
    { title: "DMARC", lines: [txtLine(`_dmarc.${domain}`, dmarcRecord(address))] },
    {
      title: "MTA-STS",
      lines: [
        ...stsLines(domain, policy),
        `; and mta-sts.${domain} has to be a web server with a certificate for that name`,
      ],
    },
    { title: "TLSRPT", lines: [txtLine(`_smtp._tls.${domain}`, tlsrptRecord(address))] },
    { title: "TLSA", lines: tlsaLines(published) },
    { title: "reverse DNS", lines: reverseLines(subject) },
  ].filter(({ lines }) => lines.length > 0);
}

/** Our names in EHLO, this host's first. */
const names = ({ hostname, addresses }: Subject): string[] => [
  ...new Set([hostname, ...addresses.map((one) => one.hostname)]),
];

function hostLines(subject: Subject): string[] {
  const { hostname, addresses } = subject;
  const lines = addresses.map(({ address, hostname }) => addressLine(hostname, address));
  if (addresses.some((one) => one.hostname === hostname)) return lines;
  return [
    `; ${hostname} needs an A or AAAA record for the address that others reach it by`,
    ...lines,
  ];
}

function tlsaLines({ subject, mx, hostKeys }: Published): string[] {
  const { hostname, listeners } = subject;
  const ports = [...new Set(listeners.map(({ port }) => port))].sort((a, b) => a - b);
  const at = (name: string) => hostKeys.map((spki) => tlsaLine(name, tlsaOf(spki)));
  if (hostKeys.length === 0) return [];
  return [
    "; true only in a zone that is signed with DNSSEC. First the key in use, then the spare one:",
    "; listeners show the first; when it has to go, the other can take its place at once",
    ...(mx === hostname
      ? [
        ...at(`_${SMTP}._tcp.${mx}`),
        `; port ${SMTP}: for a server there that is given one of these keys; leave it out otherwise`,
      ]
      : [`; ${mx} has keys of its own: its operator knows the records of _${SMTP}._tcp.${mx}`]),
    ...ports.filter((port) => port !== SMTP || mx !== hostname)
      .flatMap((port) => at(`_${port}._tcp.${hostname}`)),
  ];
}

function reverseLines({ hostname, addresses }: Subject): string[] {
  const advice = "; whoever gave you the address sets its name; it has to be the one in EHLO";
  if (addresses.length === 0) {
    return [advice, `; every address that mail leaves from has to have the name ${hostname}`];
  }
  return [advice, ...addresses.map(({ address, hostname }) => ptrLine(address, hostname))];
}
