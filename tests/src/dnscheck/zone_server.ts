/** A name server on loopback over the lines of a zone file, as the commands print them. */
import { Buffer } from "node:buffer";
// @ts-types="@types/dns-packet"
import type { Answer } from "dns-packet";
import { DnsServer, FLAGS, type Handler, RCODE, reply } from "../dns/dns_server.ts";

/** Reads lines like `name. IN TYPE data`; comments and empty lines are passed over. */
export function parseZone(lines: readonly string[]): Answer[] {
  return lines.filter((line) => line.trim() !== "" && !line.startsWith(";")).map((line) => {
    const [, name, type, data] = /^(\S+)\. IN (\S+) (.*)$/.exec(line) ?? [];
    if (name === undefined || type === undefined || data === undefined) {
      throw new Error(`not a line of a zone: ${line}`);
    }
    return { name: name.toLowerCase(), ttl: 300, ...rdata(type, data) } as Answer;
  });
}

function rdata(type: string, data: string): { type: string; data: unknown } {
  const words = data.split(" ");
  const host = (text = "") => text.replace(/\.$/, "");
  switch (type) {
    case "A":
    case "AAAA":
      return { type, data };
    case "PTR":
    case "CNAME":
      return { type, data: host(data) };
    case "MX":
      return { type, data: { preference: Number(words[0]), exchange: host(words[1]) || "." } };
    case "TXT":
      return {
        type,
        data: [...data.matchAll(/"((?:[^"\\]|\\.)*)"/g)].map(([, text = ""]) => {
          const octets = text.replace(
            /\\(\d{3}|.)/g,
            (_, what: string) => /^\d{3}$/.test(what) ? String.fromCharCode(Number(what)) : what,
          );
          if (octets.length > 255) throw new Error(`a string of ${octets.length} octets`);
          return Buffer.from(octets, "latin1");
        }),
      };
    case "TLSA":
      return {
        type,
        data: {
          usage: Number(words[0]),
          selector: Number(words[1]),
          matchingType: Number(words[2]),
          certificate: Buffer.from(words[3] ?? "", "hex"),
        },
      };
    default:
      throw new Error(`no such type here: ${type}`);
  }
}

export interface ZoneOptions {
  /** Whether answers carry AD; true by default. */
  readonly signed?: boolean;
  /** Names for which there is no answer but SERVFAIL. */
  readonly broken?: readonly string[];
}

/** Answers from the lines: NXDOMAIN where neither the name nor one below it is there. */
export function serveZone(lines: readonly string[], options: ZoneOptions = {}): Promise<DnsServer> {
  const { signed = true, broken = [] } = options;
  const records = parseZone(lines);
  const handler: Handler = (asked) => {
    const name = asked.name.toLowerCase();
    const ad = signed ? FLAGS.ad : 0;
    if (broken.includes(name)) return reply(asked, [], { flags: RCODE.servfail });
    const own = records.filter((record) => record.name === name);
    const alias = own.find((record) => record.type === "CNAME");
    if (alias?.type === "CNAME") {
      const behind = records.filter((record) =>
        record.name === alias.data && record.type === asked.type
      );
      return reply(asked, [alias, ...behind], { flags: ad });
    }
    const answers = own.filter((record) => record.type === asked.type);
    const exists = own.length > 0 || records.some((record) => record.name.endsWith(`.${name}`));
    return reply(asked, answers, { flags: ad | (exists ? 0 : RCODE.nxdomain) });
  };
  return DnsServer.start(handler);
}
