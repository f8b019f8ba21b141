/**
 * The TXT record at `_smtp._tls.DOMAIN`, by which a domain asks for TLS reports and says where to
 * send them (RFC 8460, section 3).
 */
import { hostName } from "../../dns/names.ts";
import { formatMailbox, parseMailbox } from "../../smtp/address.ts";
import { utf8 } from "../text_record.ts";

export type ReportPlace =
  | { readonly kind: "mailto"; readonly uri: string; readonly address: string }
  | {
    readonly kind: "https";
    readonly uri: string;
    readonly host: string;
    readonly port: number;
    /** Path and query. */
    readonly path: string;
  };

export type ReportRecord =
  | { readonly ok: true; readonly places: readonly ReportPlace[] }
  | { readonly ok: false; readonly why: string };

/** Places that a report goes to; a record may name any number, and nobody is served by more. */
export const MAX_PLACES = 4;
const MAX_URI = 1_000;

const VERSION = /^v=TLSRPTv1[ \t]*;/;

/** @param records each as the strings that it came in, which are joined without blanks */
export function parseReportRecord(
  records: readonly (readonly Uint8Array[])[],
): ReportRecord {
  const texts = records.map(utf8).filter((text) => text !== undefined && VERSION.test(text));
  const [text] = texts;
  if (text === undefined) return { ok: false, why: "the domain asks for no TLS reports" };
  if (texts.length > 1) {
    return { ok: false, why: `there are ${texts.length} TLSRPT records instead of one` };
  }
  const rua = text.split(";").slice(1).map((field) => field.trim())
    .find((field) => field.startsWith("rua="));
  if (rua === undefined) return { ok: false, why: "the TLSRPT record has no rua" };
  const places: ReportPlace[] = [];
  for (const uri of rua.slice(4).split(",")) {
    const place = placeOf(uri.trim());
    if (place && !places.some((other) => other.uri === place.uri)) places.push(place);
    if (places.length === MAX_PLACES) break;
  }
  return places.length > 0
    ? { ok: true, places }
    : { ok: false, why: "the rua of the TLSRPT record names no place that there could be" };
}

function placeOf(uri: string): ReportPlace | undefined {
  if (uri.length > MAX_URI || !/^[!-~]+$/.test(uri)) return undefined;
  if (/^mailto:/i.test(uri)) {
    const [written = ""] = uri.slice("mailto:".length).split("?");
    try {
      const address = formatMailbox(parseMailbox(decodeURIComponent(written)));
      // In ASCII, so that it needs no extension of SMTP.
      return /^[!-~]+$/.test(address) ? { kind: "mailto", uri, address } : undefined;
    } catch {
      return undefined; // not an address, or not percent-encoded as it should be
    }
  }
  const url = URL.canParse(uri) ? new URL(uri) : undefined;
  if (url?.protocol !== "https:" || url.username !== "" || url.password !== "") return undefined;
  const host = hostName(url.hostname);
  if (host === undefined) return undefined;
  const path = url.pathname + url.search;
  return { kind: "https", uri, host, port: url.port === "" ? 443 : Number(url.port), path };
}
